"""Least privilege: three roles on the server, and a user for each; readers, writers, owners."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pymongo.errors import OperationFailure

from wyloop.models.errors import DatabaseError
from wyloop.stores.connection import Store
from wyloop.stores.failures import translated

_READ = ("find", "listIndexes", "listCollections", "changeStream")
_WRITE = ("insert", "update")
_OWN = (
    "createCollection", "createIndex", "dropIndex", "dropCollection", "collMod", "collStats", "dbStats",
    "renameCollectionSameDB", "dropDatabase",
)  # fmt: skip
REMOVABLE = (
    "encodings", "materials", "hulls", "optimade_structures", "optimade_references", "fs.files", "fs.chunks",
    "latents.files", "latents.chunks", "locks", "ingests",
)  # fmt: skip
"""Collections in which a writer may remove documents: derived ones, model files, locks; what is measured stays."""

AUTHENTICATION = "admin"
"""Database that holds the users and roles; one user may work on two databases."""
_NO_SUCH = {11, 31}  # user, role
_UNAUTHORIZED = 13
_LENGTH = 24  # bytes of a password made here


class Role(StrEnum):
    """Who may do what."""

    READER = "reader"  # the API, people who look
    WRITER = "writer"  # workers, flows, ingest
    OWNER = "owner"  # migrations, indexes, restore


@dataclass(frozen=True)
class Account:
    """A user made for a role; the password is there once, for who made it."""

    role: str
    user: str
    is_new: bool
    password: str | None = field(default=None, repr=False)


def role_name(database: str, role: Role) -> str:
    """Return the name of a role on the server, which is also its user's unless another is given."""
    return f"{database}_{role.value}"


def privileges(database: str, jobs: str, role: Role) -> list[dict[str, Any]]:
    """Return what a role may do, as `createRole` takes it.

    Args:
        database: Name of Wyloop's database.
        jobs: Name of the FireWorks database; readers see nothing of it.
        role: The role.
    """
    if role is Role.READER:
        return [_on(database, _READ)]
    if role is Role.WRITER:
        removable = [_on(database, ("remove",), name) for name in REMOVABLE]
        work = (*_READ, *_WRITE, "remove", "createIndex")  # FireWorks makes its indexes itself
        return [_on(database, (*_READ, *_WRITE)), *removable, _on(jobs, work)]
    return [_on(name, (*_READ, *_WRITE, "remove", *_OWN)) for name in (database, jobs)]


@translated
def create_roles(store: Store, jobs: str, passwords: Mapping[Role, str | None]) -> list[Account]:
    """Make the roles, or bring them up to date, and a user for each that has none.

    Args:
        store: The database, opened without its checks by a user who may make users and roles.
        jobs: Name of the FireWorks database.
        passwords: Roles wanted, with a password, or None to have one made; a user who is there keeps theirs.

    Raises:
        DatabaseError: A password of fewer than 8 characters, or a user who may not make users and roles.
    """
    for role, password in passwords.items():
        if password is not None and len(password) < 8:
            raise DatabaseError(f"the password of the {role} is too short; expected 8 characters or more")
    try:
        return [_create(store, jobs, role, password) for role, password in passwords.items()]
    except OperationFailure as error:
        if error.code == _UNAUTHORIZED:
            raise DatabaseError(
                "this user may not make users and roles; expected one with userAdmin on admin; "
                "give its address in WYLOOP_STORES_URI for this command"
            ) from error
        raise


@translated
def drop_roles(store: Store) -> None:
    """Remove users and roles of this database; its data stays."""
    admin = store.client[AUTHENTICATION]
    for role in Role:
        for command in ("dropUser", "dropRole"):
            _unless_missing(admin, command, role_name(store.name, role))


def _create(store: Store, jobs: str, role: Role, password: str | None) -> Account:
    admin = store.client[AUTHENTICATION]
    name = role_name(store.name, role)
    allowed = privileges(store.name, jobs, role)
    if _unless_missing(admin, "updateRole", name, privileges=allowed, roles=[]) is None:
        admin.command("createRole", name, privileges=allowed, roles=[])
    granted = [{"role": name, "db": AUTHENTICATION}]
    if _unless_missing(admin, "updateUser", name, roles=granted) is not None:
        return Account(role.value, name, is_new=False)
    made = password or secrets.token_urlsafe(_LENGTH)
    admin.command("createUser", name, pwd=made, roles=granted)
    return Account(role.value, name, is_new=True, password=made if password is None else None)


def _unless_missing(admin: Any, command: str, name: str, **options: object) -> Any:  # noqa: ANN401 - pymongo's
    try:
        return admin.command(command, name, **options)
    except OperationFailure as error:
        if error.code in _NO_SUCH:
            return None
        raise


def _on(database: str, actions: tuple[str, ...], collection: str = "") -> dict[str, Any]:
    return {"resource": {"db": database, "collection": collection}, "actions": list(actions)}
