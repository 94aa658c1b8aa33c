"""The one place where a flow, task or job finds its database: from the environment, never from stored parameters."""

from functools import cache
from typing import TYPE_CHECKING

from wyloop.flows.settings import Settings
from wyloop.models.errors import DatabaseError
from wyloop.stores.connection import Store, connect
from wyloop.stores.settings import Settings as StoreSettings

if TYPE_CHECKING:
    from fireworks import LaunchPad


@cache
def store() -> Store:
    """Return this process's connection, made on first use from `WYLOOP_STORES_*`.

    Raises:
        DatabaseError: MongoDB is unreachable, read-only or of a newer schema.
    """
    return connect(StoreSettings())


@cache
def settings() -> Settings:
    """Return this process's flow settings."""
    return Settings()


@cache
def launchpad() -> "LaunchPad":
    """Return this process's LaunchPad, on the MongoDB of the stores.

    Raises:
        DatabaseError: No database is configured.
    """
    # fireworks takes half a second to import
    from wyloop.flows.launchpad import launchpad as open_launchpad

    uri = StoreSettings().uri
    if uri is None:
        raise DatabaseError("WYLOOP_STORES_URI is not set; expected the address of a MongoDB, or start one: wyloop up")
    return open_launchpad(uri.get_secret_value(), settings().launchpad_database)
