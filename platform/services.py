"""The services of one machine: what is configured elsewhere is used, the rest is started and stopped here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wyloop.platform import mongod, prefect_server, processes, workers
from wyloop.platform.api import service as api_service
from wyloop.platform.settings import AllSettings
from wyloop.stores.connection import connect


@dataclass(frozen=True)
class RunningServices:
    """Where the services of a run are.

    Attributes:
        uri: MongoDB address; may hold a password.
        prefect_api_url: Address of Prefect's API, None without Prefect.
        prefect_ui_url: Address of Prefect's web pages, None without Prefect.
        api_url: Address of the web server, None without it.
        started: Names of the services that this call started, for `down(only_started=...)`.
        environment: Variables that our other processes need to reach them.
    """

    uri: str = field(repr=False)
    prefect_api_url: str | None
    prefect_ui_url: str | None
    started: list[str]
    environment: dict[str, str] = field(repr=False)
    api_url: str | None = None


@dataclass(frozen=True)
class ServiceStatus:
    """State of one service.

    Attributes:
        name: Name of the service.
        state: "running", "stopped", "external" (configured, not ours) or "unhealthy".
        address: Where it answers, without password; "" for none.
        pid: Process id, None when not running here.
        memory_mb: Resident memory with children, MB; None when not running here.
        log: Log file, "" when there is none.
    """

    name: str
    state: str
    address: str = ""
    pid: int | None = None
    memory_mb: float | None = None
    log: str = ""


def up(
    settings: AllSettings,
    *,
    with_prefect: bool = True,
    with_flow_server: bool = False,
    with_api: bool = False,
    n_workers: int | None = None,
    categories: Sequence[Sequence[str]] = (),
) -> RunningServices:
    """Start what is neither configured nor running; reuse the rest.

    Args:
        settings: Settings of all layers; a database in `stores.uri` means that no mongod is started.
        with_prefect: Whether a Prefect server is wanted.
        with_flow_server: Whether the process that serves the scheduled flows is wanted; needs Prefect.
        with_api: Whether the web server is wanted.
        n_workers: FireWorks workers; None takes the settings' number.
        categories: Category list of each worker in turn; empty lets every worker run every job.

    Raises:
        ServiceError: A service that can't be found, started or reached; what this call started is stopped again.
        DatabaseError: The configured database is unreachable, read-only or of a newer schema.
    """
    folder = settings.data_folder
    started: list[str] = []
    try:
        uri = _database(settings, started)
        environment = {**settings.with_uri(uri).environment(), **prefect_server.prefect_environment(folder)}
        prefect = None
        if with_prefect:
            prefect = prefect_server.start_prefect(folder, settings.platform.prefect_port)
            started += [prefect_server.NAME] if prefect.is_new else []
            environment["PREFECT_API_URL"] = prefect.api_url
        wanted = settings.platform.n_workers if n_workers is None else n_workers
        found = workers.start_workers(folder, wanted, environment=environment, categories=categories)
        started += [record.name for record, is_new in found if is_new]
        api_url = None
        if with_api:
            pages = {"WYLOOP_PLATFORM_PREFECT_URL": prefect.ui_url} if prefect else {}
            own = pages | environment  # what is configured goes first: people may see the pages under another name
            record, is_new = api_service.start_api(folder, settings.platform.api_port, environment=own)
            started += [record.name] if is_new else []
            api_url = api_service.address(record)
        environment = _dashboard(folder) | environment
        if with_prefect and with_flow_server:
            record, is_new = workers.start_flow_server(folder, environment=environment)
            started += [record.name] if is_new else []
    except BaseException:  # Ctrl-C included: half a set of services helps nobody
        down(settings, only_started=started)
        raise
    return RunningServices(
        uri, prefect.api_url if prefect else None, prefect.ui_url if prefect else None, started, environment, api_url
    )


def _dashboard(folder: Path) -> dict[str, str]:
    """Return the variable that tells flows where the dashboard of this machine is, if one runs."""
    record = processes.running(folder, api_service.NAME)
    return {} if record is None else {"WYLOOP_FLOWS_DASHBOARD_URL": api_service.address(record)}


def down(settings: AllSettings, only_started: Sequence[str] | None = None) -> list[str]:
    """Stop embedded services, those that write first.

    Args:
        settings: Settings of all layers.
        only_started: Names to stop, as in `RunningServices.started`; None for all.

    Returns:
        Names of those that ran.
    """
    folder = settings.data_folder
    if not (folder / "services").is_dir():
        return []
    stopped = workers.stop_workers(folder, only_started)
    services = (
        (api_service.NAME, api_service.stop_api),
        (prefect_server.NAME, prefect_server.stop_prefect),
        (mongod.NAME, mongod.stop_mongod),
    )
    for name, stop in services:
        if (only_started is None or name in only_started) and stop(folder):
            stopped.append(name)
    return stopped


def status(settings: AllSettings) -> list[ServiceStatus]:
    """Look at every service without starting anything."""
    folder = settings.data_folder
    found = [_database_status(settings), _prefect_status(folder)]
    found.append(_process_status(folder, workers.FLOW_SERVER))
    found += _api_status(folder)
    records = workers.running_workers(folder)
    if not records:
        return [*found, ServiceStatus("worker", "stopped")]
    return found + [_process_status(folder, record.name) for record in records]


def embedded_uri(settings: AllSettings) -> str | None:
    """Return the address of the database that is configured or runs embedded; None when one must be started."""
    if settings.stores.uri is not None:
        return settings.stores.uri.get_secret_value()
    handle = mongod.running_mongod(settings.data_folder)
    return handle.uri if handle else None


def _database(settings: AllSettings, started: list[str]) -> str:
    if settings.stores.uri is not None:
        connect(settings.stores).close()  # what is wrong with it is said now, not by a worker's log later
        return settings.stores.uri.get_secret_value()
    platform = settings.platform
    handle = mongod.start_mongod(settings.data_folder, platform.mongod_port, cache_gb=platform.mongod_cache_gb)
    started += [mongod.NAME] if handle.is_new else []
    return handle.uri


def _database_status(settings: AllSettings) -> ServiceStatus:
    if settings.stores.uri is not None:
        uri = settings.stores.uri.get_secret_value()
        state = "external" if mongod.is_healthy(uri) else "unhealthy"
        return ServiceStatus(mongod.NAME, state, without_password(uri))
    found = _process_status(settings.data_folder, mongod.NAME)
    handle = mongod.running_mongod(settings.data_folder)
    if handle is None:
        return found
    state = "running" if mongod.is_healthy(handle.uri) else "unhealthy"
    return ServiceStatus(found.name, state, handle.uri, found.pid, found.memory_mb, found.log)


def _prefect_status(folder: Path) -> ServiceStatus:
    configured = prefect_server.configured_server()
    if configured is not None:
        state = "external" if prefect_server.is_healthy(configured.api_url) else "unhealthy"
        return ServiceStatus(prefect_server.NAME, state, without_password(configured.ui_url))
    found = _process_status(folder, prefect_server.NAME)
    handle = prefect_server.running_prefect(folder)
    if handle is None:
        return found
    state = "running" if prefect_server.is_healthy(handle.api_url) else "unhealthy"
    return ServiceStatus(found.name, state, handle.ui_url, found.pid, found.memory_mb, found.log)


def _api_status(folder: Path) -> list[ServiceStatus]:
    record = processes.running(folder, api_service.NAME)
    if record is None:  # it is only started on request
        return []
    found = _process_status(folder, api_service.NAME)
    url = api_service.address(record)
    state = "running" if api_service.is_healthy(url) else "unhealthy"
    return [ServiceStatus(found.name, state, url, found.pid, found.memory_mb, found.log)]


def _process_status(folder: Path, name: str) -> ServiceStatus:
    record = processes.running(folder, name)
    log = folder / "logs" / f"{name}.log"
    shown = str(log) if log.exists() else ""
    if record is None:
        return ServiceStatus(name, "stopped", log=shown)
    return ServiceStatus(name, "running", "", record.pid, round(processes.memory_mb(record), 1), shown)


def without_password(uri: str) -> str:
    """Return an address without user and password."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}"
