"""The one place where pymongo's errors become ours: one line with what happened and what to do."""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConfigurationError,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
)

from wyloop.models.errors import DatabaseError

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_UNAUTHORIZED = {13, 18, 8000}
_DISK_FULL = {14031, 28}
_NOT_PRIMARY = {10107, 13435, 10058, 189, 91}


def translated(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Wrap a public function of the stores so that an error of pymongo leaves it as a DatabaseError."""

    @wraps(function)
    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        except PyMongoError as error:
            raise DatabaseError(describe(error)) from error

    return call


def describe(error: PyMongoError) -> str:
    """Say in one line what MongoDB refused, what was expected, and the remedy."""
    code = error.code if isinstance(error, OperationFailure) else None
    text = _first_line(error)
    if isinstance(error, BulkWriteError):
        failures = (error.details or {}).get("writeErrors") or [{}]
        code, text = failures[0].get("code", code), str(failures[0].get("errmsg", text)).splitlines()[0]
    if code in _DISK_FULL or "No space left" in text or "OutOfDiskSpace" in text:
        return f"MongoDB's disk is full ({text}); expected free space; free some and run the same command again"
    if code in _UNAUTHORIZED:
        return f"MongoDB refused the user ({text}); expected a user who may read and write; check WYLOOP_STORES_URI"
    if code in _NOT_PRIMARY:
        return f"MongoDB is read-only here ({text}); expected a writable primary; wait for one or check the replica set"
    if isinstance(error, DuplicateKeyError) or code == 11000:
        return f"a document with this identity exists already ({text}); expected a new one; run the command again"
    if isinstance(error, ConfigurationError):
        return f"can't use this MongoDB address ({text}); expected mongodb://host:port/; correct WYLOOP_STORES_URI"
    if isinstance(error, AutoReconnect):
        return (
            f"lost MongoDB ({text}); expected a running replica set; see in its log why it ended (a full disk does "
            "that), start it and run the same command again"
        )
    return f"MongoDB refused an operation ({text}); expected it to succeed; see the server's log"


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].split(", full error")[0].split(", Topology Description")[0][:300]
