"""Pages made of templates: filters for numbers, files beside them, and the headers that keep them safe."""

import gzip
import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException, Request, Response
from fastapi.responses import HTMLResponse

from wyloop.stores.documents.base import code_version

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).parent
STATIC = HERE / "static"
VIEWER = "3Dmol-min.js"
MEDIA = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
        "worker-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@cache
def environment() -> "Environment":
    """Return the templates; every value is escaped."""
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader

    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=ChainableUndefined,  # a document lacks what is not known
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"number": number, "count": count, "when": when, "words": words, "formula": formula}
    made.globals |= {"version": code_version(), "asset": asset_address, "has_viewer": asset_path(VIEWER) is not None}
    return made


def page(request: Request, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:  # noqa: ANN401
    """Return a page made of a template."""
    values |= {"path": request.url.path, "query": request.query_params, "prefect_url": request.app.state.prefect_url}
    html = environment().get_template(name).render(values)
    return HTMLResponse(html, status, headers=dict(HEADERS))


def number(value: object, digits: int = 2) -> str:
    """Return a number with so many decimals; a dash where there is none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "–"
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.replace("-", "")


def count(value: object) -> str:
    """Return a whole number with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else "–"


def when(value: object) -> str:
    """Return a time as people read it, UTC."""
    if isinstance(value, str):
        try:
            return when(datetime.fromisoformat(value))
        except ValueError:
            return value
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M") if isinstance(value, datetime) else "–"


def words(value: object) -> str:
    """Return a name of the code as words."""
    return str(value).replace("_", " ")


def formula(value: object) -> Any:  # noqa: ANN401 - safe HTML
    """Return a formula with its numbers set low."""
    import re

    from markupsafe import Markup, escape

    return Markup(re.sub(r"(\d+)", r"<sub>\1</sub>", str(escape(str(value)))))  # noqa: S704 - escaped before


def asset_path(name: str) -> Path | None:
    """Return where a script or style stands: our own, Plotly's in its package, 3Dmol's where it was put."""
    if name == "plotly.min.js":
        import importlib.util

        spec = importlib.util.find_spec("plotly")
        found = Path(spec.origin).parent / "package_data" / name if spec and spec.origin else None
        return found if found is not None and found.is_file() else None
    own = STATIC / ("vendor" if name == VIEWER else ".") / name
    return own if own.is_file() else None


@cache
def _content(name: str) -> tuple[bytes, bytes, str] | None:
    """Return a file, packed, and a mark that changes with it."""
    path = asset_path(name)
    if path is None or path.suffix not in MEDIA:
        return None
    data = path.read_bytes()
    return data, gzip.compress(data, 6, mtime=0), hashlib.sha256(data).hexdigest()[:16]


def asset_address(name: str) -> str:
    """Return the address of a script or style; it changes with its content."""
    found = _content(name)
    return f"/assets/{name}?v={found[2]}" if found else f"/assets/{name}"


def asset(request: Request, name: str) -> Response:
    """Return a script or style, to be kept by the browser."""
    found = _content(name) if name in ASSETS else None
    if found is None:
        raise HTTPException(404, f"no asset {name[:60]!r}")
    data, packed, mark = found
    kept = {"Cache-Control": "public, max-age=31536000, immutable", "ETag": f'"{mark}"', "Vary": "Accept-Encoding"}
    headers = {"X-Content-Type-Options": "nosniff"} | kept
    if request.headers.get("if-none-match") == f'"{mark}"':
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        data = packed
    return Response(data, headers=headers, media_type=MEDIA[Path(name).suffix])


ASSETS = ("wyloop.css", "wyloop.js", "icon.svg", "plotly.min.js", VIEWER)


def error_page(request: Request, status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return a page that says what is wrong and how to go on."""
    answer = page(request, "error.html", status=status, message=message, status_code=status)
    answer.headers.update(headers or {})
    return answer
