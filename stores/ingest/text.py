"""Text files as users have them: plain or gzipped, with or without a byte order mark, in UTF-8 or not."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from wyloop.models.errors import IngestError

PACKED: Mapping[bytes, Callable[[BinaryIO], object]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
"""First bytes of packed files, and what unpacks them."""
FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel workbook",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x89PNG": "an image",
    b"%PDF": "a PDF",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"SQLite format 3\x00": "an SQLite database",
}
"""First bytes of files that are no text."""
UNREADABLE = (UnicodeDecodeError, EOFError, zlib.error, lzma.LZMAError, OSError)
"""What reading on can raise after a file was opened."""


@dataclass(frozen=True)
class OpenedText:
    """An open text file; bytes that are no UTF-8 come as lone surrogates (see `repaired`)."""

    text: TextIO
    share_read: Callable[[], float]
    """Returns how much of the file on disk was read, from 0 to 1."""


@contextmanager
def opened(path: Path, expected: str) -> Iterator[OpenedText]:
    """Open a file for reading, unpacking gzip, bzip2 and xz.

    Args:
        path: The file.
        expected: What it should be, for the error.

    Raises:
        IngestError: It can't be opened, or its first bytes are those of something else.
    """
    try:
        raw = path.open("rb")
    except OSError as error:
        raise IngestError(f"can't read {path} ({error.strerror or error}); expected {expected}; check it") from error
    with raw:
        head = raw.peek(16)[:16]
        kind = next((name for start, name in FOREIGN.items() if head.startswith(start)), None)
        if kind is not None:
            raise IngestError(f"{path} is {kind}; expected {expected}; unpack it or save it as that")
        size = max(path.stat().st_size, 1)
        encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
        with io.TextIOWrapper(_unpacked(raw, head), encoding, errors=_errors(encoding), newline="") as text:
            yield OpenedText(text, lambda: min(raw.tell() / size, 1.0))


def read_text(path: Path, expected: str, *, max_length: int) -> str:
    """Return the whole text of a file.

    Raises:
        IngestError: It can't be read, is packed wrongly, or is longer than `max_length` characters.
    """
    try:
        with opened(path, expected) as file:
            text = file.text.read(max_length + 1)
    except UNREADABLE as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split()) or "it breaks off"
        raise IngestError(f"can't read {path} ({why}); expected {expected}; check it or copy it again") from error
    if len(text) > max_length:
        raise IngestError(f"{path} is longer than {max_length} characters; expected {expected} of one crystal")
    return repaired(text)


def repaired(text: str) -> str:
    """Return text with bytes that were no UTF-8 read as Latin-1, as older programs write them."""
    if text.isascii():
        return text
    return "".join(chr(ord(one) - 0xDC00) if "\udc80" <= one <= "\udcff" else one for one in text)


def is_utf8(text: str) -> bool:
    """Whether no byte of a text that was read by `opened` was other than UTF-8."""
    return text.isascii() or not any("\udc80" <= one <= "\udcff" for one in text)


def _errors(encoding: str) -> str:
    return "strict" if encoding == "utf-16" else "surrogateescape"


def _unpacked(raw: io.BufferedReader, head: bytes) -> io.BufferedReader:
    opener = next((opener for start, opener in PACKED.items() if head.startswith(start)), None)
    return raw if opener is None else cast(io.BufferedReader, opener(raw))
