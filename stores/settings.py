"""Settings of the database layer, from `WYLOOP_STORES_*` in the environment."""

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where the database is; built once by the entry point and passed down."""

    model_config = SettingsConfigDict(env_prefix="WYLOOP_STORES_", extra="forbid", frozen=True)

    uri: SecretStr | None = Field(
        default=None, description="MongoDB replica set, mongodb://...; none: the embedded one"
    )
    database: str = Field(
        default="wyloop", min_length=1, max_length=38, pattern=r"^[A-Za-z0-9_-]+$", description="Name of the database"
    )
    timeout_ms: int = Field(default=3000, ge=100, le=600_000, description="Wait for a server, milliseconds")
    is_read_only: bool = Field(
        default=False, description="Only read: for a user with the reader role; nothing is made, only verified"
    )
