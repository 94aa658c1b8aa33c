"""Run the web application: until stopped, or beside other work in a thread."""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from wyloop.models.errors import ServiceError

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

START_LIMIT = 20.0  # s
STOP_LIMIT = 5  # s, for requests under way
BACKLOG = 128  # connections that wait
MAX_HEAD = 2**20  # bytes of address and headers; what is longer is cut off instead of answered


def serve(app: "FastAPI", host: str, port: int, *, on_listening: Callable[[str], None] | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port to listen on, 0 for a free one.
        on_listening: Told the address, from when on requests wait for an answer.

    Raises:
        ServiceError: The port is taken or the address is none of this machine's.
    """
    listening = _listening(host, port)
    # uvicorn ends in good order at a signal, then sends it again to who stood there before: us, who end in good order
    previous = {number: signal.signal(number, _do_nothing) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        if on_listening is not None:
            on_listening(_address(listening))
        _server(app).run(sockets=[listening])
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        listening.close()


@contextmanager
def serving(app: "FastAPI") -> Iterator[str]:
    """Serve on a free port of loopback in a thread of this process; give the address, without a slash at its end.

    Raises:
        ServiceError: The server did not start.
    """
    listening = _listening("127.0.0.1", 0)
    server = _server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="api", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + START_LIMIT
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise ServiceError(f"the web server did not start within {START_LIMIT:g} s; see the log")
            time.sleep(0.01)
        yield _address(listening)
    finally:
        server.should_exit = True
        thread.join(START_LIMIT)
        listening.close()


def _do_nothing(number: int, frame: object) -> None:
    """Take a signal that was dealt with already."""


def _listening(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ServiceError(f"can't listen on {host} port {port} ({error.strerror}); give another --port") from error
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _server(app: "FastAPI") -> "uvicorn.Server":
    import uvicorn

    class Server(uvicorn.Server):
        """uvicorn that ends the streams of live updates when it is told to end: it would wait for them."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            live = getattr(app.state, "live", None)
            if live is not None:
                live.close()
            await super().shutdown(sockets)

    return Server(
        uvicorn.Config(
            app,
            http="h11",  # the faster one knows no limit
            h11_max_incomplete_event_size=MAX_HEAD,
            ws="none",
            log_config=None,  # the entry point has set up logging
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_LIMIT,
        )
    )
