"""What ends a process, or puts it to sleep, at one of its writes."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

from pymongo import monitoring

WRITES = frozenset({"insert", "update", "delete", "findAndModify", "findandmodify", "commitTransaction"})


class Killer(monitoring.CommandListener):
    """Ends this process, or another one, by SIGKILL before or after its n-th write; or puts it to sleep."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.kill_at, self.is_after = order.get("kill_at", 0), order.get("is_after", False)
        self.stop_at, self.victim = order.get("stop_at", 0), order.get("victim") or os.getpid()
        self.log = Path(order["log"]) if order.get("log") else None
        self.n_writes = 0
        self.numbers: dict[int, int] = {}
        self.lock = threading.Lock()

    def started(self, event: monitoring.CommandStartedEvent) -> None:
        if event.command_name not in WRITES:
            return
        with self.lock:
            self.n_writes += 1
            self.numbers[event.request_id] = self.n_writes
            if self.log is not None:
                name = f"{event.database_name}.{event.command.get(event.command_name)}"
                with self.log.open("a") as file:
                    file.write(f"{self.n_writes} {event.command_name} {name}\n")
            if self.n_writes == self.kill_at and not self.is_after:
                os.kill(self.victim, signal.SIGKILL)
        if self.n_writes == self.stop_at:
            os.kill(os.getpid(), signal.SIGSTOP)

    def succeeded(self, event: monitoring.CommandSucceededEvent) -> None:
        self._ended(event.request_id)

    def failed(self, event: monitoring.CommandFailedEvent) -> None:
        self._ended(event.request_id)

    def _ended(self, request_id: int) -> None:
        number = self.numbers.pop(request_id, 0)
        if self.is_after and number and number == self.kill_at:
            os.kill(self.victim, signal.SIGKILL)
