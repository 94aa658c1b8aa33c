"""Hosts on one machine: processes with a host name, a working folder and, where we may, a network of their own."""

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
_CLONE_NEWNET, _CLONE_NEWUTS = 0x40000000, 0x04000000


@dataclass(frozen=True)
class Host:
    """One host."""

    name: str
    folder: Path
    network: str | None = None
    """Name of its network namespace; none: it is on this machine's."""
    gateway: str = LOOPBACK
    """This machine's address as the host sees it."""
    link: str = ""

    def cut_off(self) -> None:
        """Let nothing through to it and from it."""
        if self.network:
            _ip("link", "set", self.link, "down")

    def connect(self) -> None:
        """Let everything through again."""
        if self.network:
            _ip("link", "set", self.link, "up")


@contextmanager
def hosts(folder: Path, names: Sequence[str]) -> Iterator[list[Host]]:
    """Make hosts, each on a network of its own if we are root and the kernel lets us; else on this machine's."""
    with ExitStack() as stack:
        found = []
        for number, name in enumerate(names):
            own = folder / name
            own.mkdir()
            gateway = stack.enter_context(_network(f"wyl{os.getpid()}n{number}", number))
            has_network = gateway != LOOPBACK
            namespace = f"wyl{os.getpid()}n{number}"
            found.append(Host(name, own, namespace if has_network else None, gateway, f"{namespace}a"))
        yield found


@contextmanager
def _network(name: str, number: int) -> Iterator[str]:
    """Make a network namespace with one link to this machine; yields this machine's address on it."""
    subnet = f"10.213.{number + 1}"
    inside = ("-n", name)
    try:
        _ip("netns", "add", name)
        _ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        _ip("addr", "add", f"{subnet}.1/30", "dev", f"{name}a")
        _ip(*inside, "addr", "add", f"{subnet}.2/30", "dev", f"{name}b")
        for where, link in (((), f"{name}a"), (inside, f"{name}b"), (inside, "lo")):
            _ip(*where, "link", "set", link, "up")
        address = f"{subnet}.1"
    except (OSError, subprocess.CalledProcessError):  # no iproute, or not allowed
        address = LOOPBACK
    try:
        yield address
    finally:
        with suppress(OSError):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def join(name: str, network: str | None) -> None:
    """Make this process one of a host: its network, and its name."""
    libc = ctypes.CDLL(None, use_errno=True)
    if network is not None:
        with Path("/run/netns", network).open() as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"can't join network {network}")
    if libc.unshare(_CLONE_NEWUTS) == 0:
        socket.sethostname(name)
    else:
        socket.gethostname = lambda: name  # not root: what our code asks says so nevertheless
