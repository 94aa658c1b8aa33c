"""What is too large for a calculation's document, in GridFS: arrays, a picture, the calculator's log."""

import gzip
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from bson import ObjectId
from gridfs.errors import NoFile
from numpy.typing import NDArray

from wyloop.models.errors import DatabaseError
from wyloop.stores.calculations import FILES
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated

Array = NDArray[np.float64]


@translated
def put_files(
    store: Store, identity: str, *, arrays: Mapping[str, Array] | None = None, picture: bytes = b"", raw: str = ""
) -> dict[str, ObjectId]:
    """Store the files of a calculation before it is completed, which names them.

    Returns:
        Name, of `FILES`, to the file's id; only of what was given.
    """
    contents: dict[str, bytes] = {}
    if arrays:
        stream = io.BytesIO()
        plain: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
        np.savez_compressed(stream, **plain)
        contents["arrays"] = stream.getvalue()
    if picture:
        contents["picture"] = picture
    if raw:
        contents["raw"] = gzip.compress(raw.encode(), mtime=0)
    return {name: store.gridfs.put(content, filename=f"{identity}-{name}") for name, content in contents.items()}


@translated
def drop_unnamed(store: Store, identity: str) -> int:
    """Delete the files of a completed calculation that it does not name: those of interrupted attempts, or of a second.

    Returns:
        How many; none of a calculation that is not completed, since somebody may be about to name them.
    """
    names = [f"{name}_file" for name in FILES]
    criteria = {"calculation_id": {"$eq": identity}, "status": "completed"}
    found = store.database["calculations"].find_one(criteria, dict.fromkeys(names, 1))
    if found is None:
        return 0
    named = [found[name] for name in names if name in found]
    criteria = {"filename": {"$in": [f"{identity}-{name}" for name in FILES]}, "_id": {"$nin": named}}
    files = [row["_id"] for row in store.database["fs.files"].find(criteria, {"_id": 1})]
    for file in files:
        store.gridfs.delete(file)
    return len(files)


@translated
def arrays_of(store: Store, identity: str) -> dict[str, Array]:
    """Return the arrays of a calculation by name.

    Raises:
        DatabaseError: It has none.
    """
    with np.load(io.BytesIO(_content(store, identity, "arrays"))) as found:
        return {name: np.asarray(found[name], dtype=float) for name in found.files}


@translated
def picture_of(store: Store, identity: str) -> bytes:
    """Return the picture of a calculation, svg.

    Raises:
        DatabaseError: It has none.
    """
    return _content(store, identity, "picture")


@translated
def raw_of(store: Store, identity: str) -> str:
    """Return the log that a calculation's worker kept.

    Raises:
        DatabaseError: It has none.
    """
    return gzip.decompress(_content(store, identity, "raw")).decode()


def _content(store: Store, identity: str, name: str) -> bytes:
    if name not in FILES:
        raise DatabaseError(f"no file {name!r} of calculations; expected one of {', '.join(FILES)}")
    found = store.database["calculations"].find_one({"calculation_id": {"$eq": identity}}, {f"{name}_file": 1})
    file = None if found is None else found.get(f"{name}_file")
    if file is None:
        raise DatabaseError(f"calculation {identity!r} has no {name}; expected a completed one that makes it")
    try:
        content: bytes = store.gridfs.get(file).read()
    except NoFile as error:
        raise DatabaseError(f"the {name} of calculation {identity!r} is lost; run 'wyloop db check'") from error
    return content
