"""An HTTP server on loopback that answers as OPTIMADE providers do, faults included."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from wyloop.models.crystal import Crystal


@dataclass
class Reply:
    """What the server says once: JSON, or a body as it is."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Provider:
    """A server with structures: whole pages, after faults that are said first."""

    resources: list[dict[str, Any]]
    properties: dict[str, Any] = field(default_factory=dict)
    prefix: str | None = "test"
    faults: list[Reply] = field(default_factory=list)
    """Said instead of the next answers on structures, one after another."""
    next_link: Callable[[str], Any] = lambda link: link
    meta: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, list[str]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def reply(self, target: str) -> Reply:
        parts = urlsplit(target)
        provider = {"provider": {"prefix": self.prefix, "name": "x", "description": "x"}} if self.prefix else {}
        if parts.path.endswith("/info/structures"):
            if not self.properties:
                return Reply({"errors": [{"detail": "no such page"}]}, 404)
            return Reply({"data": {"properties": self.properties}, "meta": provider})
        if not parts.path.endswith("/structures"):
            return Reply({"errors": [{"detail": "no such page"}]}, 404)
        query = parse_qs(parts.query)
        self.asked.append(query)
        if self.faults:
            return self.faults.pop(0)
        limit, offset = int(query["page_limit"][0]), int(query.get("page_offset", ["0"])[0])
        rest = "&".join(f"{name}={values[0]}" for name, values in query.items() if name != "page_offset")
        end = offset + limit
        link = f"{self.url}{parts.path}?{rest}&page_offset={end}" if end < len(self.resources) else None
        meta = provider | {"data_returned": len(self.resources), "more_data_available": link is not None} | self.meta
        return Reply(
            {"data": self.resources[offset:end], "links": {"next": link and self.next_link(link)}, "meta": meta}
        )


@contextmanager
def serving(provider: Provider) -> Iterator[str]:
    """Serve a provider on loopback; yield its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # noqa: N802 - the library's name
            provider.headers.append(dict(self.headers))
            reply = provider.reply(self.path)
            body = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in reply.headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    provider.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield provider.url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def resource(identity: str, crystal: Crystal, **attributes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return a structure resource as a provider writes it."""
    species = [
        {"name": element, "chemical_symbols": [element], "concentration": [1.0]}
        for element in dict.fromkeys(crystal.species)
    ]
    known = {
        "lattice_vectors": crystal.lattice.tolist(),
        "cartesian_site_positions": (crystal.frac_coords @ crystal.lattice).tolist(),
        "species": species,
        "species_at_sites": list(crystal.species),
        "nsites": crystal.nsites,
        "dimension_types": [1, 1, 1],
        "structure_features": [],
    }
    return {"id": identity, "type": "structures", "attributes": known | attributes}
