"""What changes in the database, told to every open page: one change stream a server, a line a second at most."""

import asyncio
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from pymongo.errors import PyMongoError

from wyloop.stores.connection import Store

logger = logging.getLogger(__name__)

WATCHED = ("campaigns", "rounds", "candidates", "calculations", "materials", "model_versions", "budgets")
INTERVAL = 1.0  # s between two lines
HEARTBEAT = 15.0  # s between two signs of life where nothing changes; proxies close what is silent
MAX_LISTENERS = 200
RETRY = 2.0  # s after the stream broke


class Live:
    """The change stream of a database, watched while anybody listens."""

    def __init__(self, store: Store, on_change: Callable[[], None] = lambda: None) -> None:
        self._store, self._on_change = store, on_change
        self._listeners: dict[int, tuple[asyncio.AbstractEventLoop, asyncio.Queue[str | None]]] = {}
        self._lock = threading.Lock()
        self._is_over = threading.Event()
        self._thread: threading.Thread | None = None
        self._next = 0

    @property
    def n_listeners(self) -> int:
        """How many pages listen."""
        return len(self._listeners)

    async def events(self) -> AsyncIterator[str]:
        """Yield lines of the `text/event-stream` format until the page goes or the server ends."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=16)
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._listeners[number] = (asyncio.get_running_loop(), queue)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, name="live", daemon=True)
                self._thread.start()
        try:
            yield "retry: 3000\n\n"
            while not self._is_over.is_set():
                try:
                    line = await asyncio.wait_for(queue.get(), HEARTBEAT)
                except TimeoutError:
                    line = ": still here\n\n"
                if line is None:
                    return
                yield line
        finally:
            with self._lock:
                self._listeners.pop(number, None)

    def close(self) -> None:
        """End every stream."""
        self._is_over.set()
        self._tell(None)

    def _tell(self, line: str | None) -> None:
        with self._lock:
            listeners = list(self._listeners.values())
        for loop, queue in listeners:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_putter(queue, line))

    def _watch(self) -> None:
        """Collect what changes and tell it once a second; end when nobody listens."""
        pipeline: list[dict[str, Any]] = [
            {"$match": {"ns.coll": {"$in": list(WATCHED)}}},
            {"$project": {"ns": 1, "operationType": 1}},
        ]
        token = None
        while not self._is_over.is_set() and self._listeners:
            try:
                with self._store.database.watch(pipeline, max_await_time_ms=500, resume_after=token) as stream:
                    changed: dict[str, int] = {}
                    last = 0.0
                    while not self._is_over.is_set() and self._listeners and stream.alive:
                        event = stream.try_next()
                        token = stream.resume_token
                        if event is not None and "ns" in event:
                            name = event["ns"].get("coll", "")
                            changed[name] = changed.get(name, 0) + 1
                        if changed and time.monotonic() - last >= INTERVAL:
                            self._on_change()  # what is kept of before must not be read by those that are told now
                            self._tell(f"event: change\ndata: {json.dumps(changed)}\n\n")
                            changed, last = {}, time.monotonic()
            except PyMongoError as error:  # an election or a lost connection: the stream goes on where it was
                logger.warning("live updates: %s", str(error).splitlines()[0][:200])
                token = None
                self._is_over.wait(RETRY)


def _putter(queue: "asyncio.Queue[str | None]", line: str | None) -> Callable[[], None]:
    def put() -> None:
        if queue.full():  # a page that does not read: it learns of the next change
            queue.get_nowait()
        queue.put_nowait(line)

    return put
