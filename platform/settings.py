"""Settings of every layer in one view: `WYLOOP_<LAYER>_*` in the environment, then `wyloop.toml`, then the defaults.

Lower floors read the environment only; `AllSettings.environment` carries what stands in the file to our processes.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as ForeignSettingsError

from wyloop.flows.settings import Settings as FlowSettings
from wyloop.models.errors import WyloopError
from wyloop.stores.settings import Settings as StoreSettings

CONFIG_VARIABLE = "WYLOOP_CONFIG"
CONFIG_NAME = "wyloop.toml"
MASK = "**********"


class SettingsError(WyloopError):
    """A setting in the environment or the settings file that is unknown or can't be read."""


class Settings(BaseSettings):
    """Settings of the platform, from `WYLOOP_PLATFORM_*` and the `[platform]` table of `wyloop.toml`."""

    model_config = SettingsConfigDict(env_prefix="WYLOOP_PLATFORM_", extra="forbid", frozen=True)

    data_folder: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("wyloop")),
        description="Folder of the embedded database, the Prefect server, logs and results",
    )
    mongod_port: int = Field(default=0, ge=0, le=65535, description="Port of the embedded MongoDB; 0: a free one, kept")
    mongod_cache_gb: float = Field(default=0.25, ge=0.25, description="Cache of the embedded MongoDB, GB")
    prefect_port: int = Field(default=0, ge=0, le=65535, description="Port of the Prefect server; 0: a free one, kept")
    n_workers: int = Field(
        default_factory=lambda: min(2, os.cpu_count() or 1),
        ge=0,
        le=256,
        description="FireWorks workers on this machine",
    )
    api_host: str = Field(default="127.0.0.1", min_length=1, description="Address that the web server listens on")
    api_port: int = Field(default=0, ge=0, le=65535, description="Port of the web server; 0: a free one, kept")
    api_token: SecretStr | None = Field(
        default=None, min_length=16, description="Token for requests that change something; none: it only reads"
    )
    api_query_time_ms: int = Field(default=3000, ge=10, le=600_000, description="Limit of a web query, milliseconds")
    api_refresh_seconds: float = Field(
        default=30, ge=0, description="Pause before OPTIMADE's view follows the database again, seconds; 0: never"
    )
    api_max_page_limit: int = Field(default=500, ge=1, le=10_000, description="Most entries on a page of OPTIMADE")
    prefect_url: str | None = Field(
        default=None, pattern="^https?://", description="Address of Prefect's pages, to link to; `wyloop up` sets it"
    )
    keep: bool = Field(default=False, description="Leave services running that a command started for itself")


@dataclass(frozen=True)
class Setting:
    """One line of `wyloop config show`; the value of a secret is masked."""

    layer: str
    name: str
    variable: str
    value: str | int | float | bool | None
    source: str


@dataclass(frozen=True)
class AllSettings:
    """The settings of all layers of one process, and the file they came from, if any."""

    platform: Settings
    stores: StoreSettings
    flows: FlowSettings
    config: Path | None

    @property
    def data_folder(self) -> Path:
        """Folder of the services, absolute."""
        return self.platform.data_folder.expanduser().absolute()

    def environment(self) -> dict[str, str]:
        """Return the variables that give another process the same settings; secrets are readable in it."""
        values: dict[str, str] = {}
        for layer, settings in self._layers().items():
            for name in settings.model_fields_set:
                value = getattr(settings, name)
                if value is not None:
                    text = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
                    values[_variable(layer, name)] = text
        return values | {"WYLOOP_PLATFORM_DATA_FOLDER": str(self.data_folder)}

    def rows(self) -> list[Setting]:
        """Return every setting with its source, secrets masked."""
        found: list[Setting] = []
        for layer, settings in self._layers().items():
            for name in type(settings).model_fields:
                variable = _variable(layer, name)
                source = "default"
                if name in settings.model_fields_set:
                    source = "environment" if variable in os.environ else str(self.config or "command line")
                found.append(Setting(layer, name, variable, _shown(getattr(settings, name)), source))
        return found

    def with_uri(self, uri: str) -> "AllSettings":
        """Return the same settings with the database at `uri`."""
        stores = StoreSettings(**(self.stores.model_dump(exclude_unset=True) | {"uri": SecretStr(uri)}))
        return AllSettings(self.platform, stores, self.flows, self.config)

    def with_database(self, name: str) -> "AllSettings":
        """Return the same settings for another database on the same server.

        Raises:
            SettingsError: MongoDB takes no such name.
        """
        try:
            stores = StoreSettings(**(self.stores.model_dump(exclude_unset=True) | {"database": name}))
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise SettingsError(f"database name {name!r}: {reason}; choose another one") from error
        return AllSettings(self.platform, stores, self.flows, self.config)

    def _layers(self) -> dict[str, BaseSettings]:
        return {"platform": self.platform, "stores": self.stores, "flows": self.flows}


LAYERS: Mapping[str, type[BaseSettings]] = {"platform": Settings, "stores": StoreSettings, "flows": FlowSettings}


def all_settings(config: Path | None = None) -> AllSettings:
    """Read the settings of every layer.

    Args:
        config: Settings file; without it the one that WYLOOP_CONFIG names, else `wyloop.toml` in the current folder if
            there is one.

    Raises:
        SettingsError: A file that can't be read, an unknown key, or a value of the wrong kind; the key is named.
    """
    path = _config_path(config)
    tables = _read(path) if path else {}
    layers = {layer: _build(layer, tables.get(layer, {}), path) for layer in LAYERS}
    platform, stores, flows = layers["platform"], layers["stores"], layers["flows"]
    assert isinstance(platform, Settings)
    assert isinstance(stores, StoreSettings)
    assert isinstance(flows, FlowSettings)
    return AllSettings(platform, stores, flows, path)


def _config_path(config: Path | None) -> Path | None:
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    if named is not None:
        return named.absolute()
    default = Path.cwd() / CONFIG_NAME
    return default if default.is_file() else None


def _read(path: Path) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text())
    except OSError as error:
        raise SettingsError(f"can't read the settings file {path}: {error.strerror}; correct --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}; correct that line") from error
    for name, table in tables.items():
        if name not in LAYERS or not isinstance(table, dict):
            raise SettingsError(
                f"{path}: unknown entry {name!r}; expected the tables {', '.join(f'[{n}]' for n in LAYERS)}"
            )
    return tables


def _build(layer: str, table: Mapping[str, Any], path: Path | None) -> BaseSettings:
    model = LAYERS[layer]
    prefix = _variable(layer, "")
    known = {_variable(layer, name) for name in model.model_fields}
    for variable in sorted(os.environ):
        if variable.startswith(prefix) and variable not in known:
            raise SettingsError(
                f"unknown variable {variable} in the environment; expected one of {', '.join(sorted(known))}"
            )
    from_file = {name: value for name, value in table.items() if _variable(layer, name) not in os.environ}
    try:
        return model(**from_file)
    except ValidationError as error:
        raise SettingsError(_first_line(error, layer, path)) from error
    except ForeignSettingsError as error:
        raise SettingsError(f"can't read the settings of {layer} from the environment: {error}") from error


def _first_line(error: ValidationError, layer: str, path: Path | None) -> str:
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    variable = _variable(layer, name)
    field = LAYERS[layer].model_fields.get(name)
    if field is None:
        return f"{path}: unknown key {name!r} in [{layer}]; expected one of {', '.join(LAYERS[layer].model_fields)}"
    where = variable if variable in os.environ else f"{path}: [{layer}] {name}"
    shown = MASK if "Secret" in str(field.annotation) else repr(first["input"])
    return f"{where} = {shown}: {first['msg']}; correct it"


def _variable(layer: str, name: str) -> str:
    return f"WYLOOP_{layer}_{name}".upper()


def _shown(value: object) -> str | int | float | bool | None:
    if isinstance(value, SecretStr):
        return MASK
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
