"""What Wyloop needs on a machine, checked one by one, each failure with its remedy."""

import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from wyloop.models.errors import WyloopError
from wyloop.platform import mongod, processes, services
from wyloop.platform.settings import AllSettings

WANTED_FREE_GB = 5.0  # GB, for a database that grows
WAITS_LONG = 3600.0  # s, a job without a worker
RUNS_LONG = 6 * 3600.0  # s, longer than a job's own limits
WANTED_MEMORY_GB = 4.0  # GB, a discovery round with its workers


@dataclass(frozen=True)
class Check:
    """One thing checked: status is "ok", "warn" (works without) or "fail"."""

    name: str
    status: str
    detail: str
    remedy: str = ""


def examine(settings: AllSettings) -> list[Check]:
    """Check Python, packages, services, calculators, disk, memory, weights and starter set; nothing is started."""
    return [
        _python(),
        _packages(),
        _mongod(),
        _database(settings),
        _contents(settings),
        _jobs(settings),
        _prefect(settings),
        _gpaw(),
        _dashboard(),
        _disk(settings.data_folder),
        _memory(),
        _weights(),
        _starter_set(),
    ]


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    if (3, 11) <= sys.version_info < (3, 13):
        return Check("Python", "ok", version)
    return Check("Python", "fail", version, "install Python 3.11 or 3.12")


def _packages() -> Check:
    from packaging.requirements import Requirement

    problems: list[str] = []
    try:
        wanted = [Requirement(text) for text in metadata.requires("wyloop") or []]
    except metadata.PackageNotFoundError:
        return Check("packages", "fail", "wyloop is not installed", "run: pip install -e .")
    needed = [item for item in wanted if item.marker is None or item.marker.evaluate({"extra": ""})]
    for requirement in needed:
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            problems.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found, prereleases=True):
            problems.append(f"{requirement.name} {found} is not {requirement.specifier}")
    if problems:
        return Check("packages", "fail", ", ".join(problems), "run: pip install -c constraints.txt wyloop")
    return Check("packages", "ok", f"{len(needed)} requirements met")


def _mongod() -> Check:
    if os.environ.get("WYLOOP_STORES_URI"):
        return Check("mongod", "ok", "not needed, WYLOOP_STORES_URI is set")
    try:
        binary = mongod.find_mongod()
        return Check("mongod", "ok", f"{mongod.server_version(binary)} at {binary}")
    except WyloopError as error:
        message, _, remedy = str(error).partition("; ")
        return Check("mongod", "fail", message, remedy)


def _database(settings: AllSettings) -> Check:
    uri = services.embedded_uri(settings)
    if uri is None:
        return Check("database", "ok", "not running; commands start it when they need it")
    if mongod.is_healthy(uri):
        return Check("database", "ok", f"writable at {services.without_password(uri)}")
    where = services.without_password(uri)
    return Check("database", "fail", f"no writable replica set at {where}", "start it, or correct WYLOOP_STORES_URI")


def _contents(settings: AllSettings) -> Check:
    """Open the database as a reader does: schema version, indexes, rights."""
    from wyloop.stores.connection import connect

    uri = services.embedded_uri(settings)
    if uri is None or not mongod.is_healthy(uri):
        return Check("contents", "ok", "not looked at, the database does not run")
    reader = settings.with_uri(uri).stores.model_copy(update={"is_read_only": True, "timeout_ms": 3000})
    try:
        connect(reader).close()
    except WyloopError as error:
        message, _, remedy = str(error).rpartition("; ")
        if "holds no Wyloop data" in message:
            return Check("contents", "ok", "empty; the first command that writes fills it")
        return Check("contents", "fail", message or remedy, remedy if message else "")
    return Check("contents", "ok", "schema and indexes are as they should be")


def _jobs(settings: AllSettings) -> Check:
    """Look for jobs that wait or run too long, and for workers."""
    from wyloop.platform.metrics import figures
    from wyloop.stores.connection import connect

    uri = services.embedded_uri(settings)
    if uri is None or not mongod.is_healthy(uri):
        return Check("jobs", "ok", "not looked at, the database does not run")
    reader = settings.with_uri(uri).stores.model_copy(update={"is_read_only": True, "timeout_ms": 3000})
    store = connect(reader, is_checked=False)
    try:
        found = figures(store, settings.flows.launchpad_database)
    finally:
        store.close()
    shown = ", ".join(f"{n} {state.lower()}" for state, n in found.jobs.items()) or "none"
    if found.oldest.get("READY", 0.0) > WAITS_LONG:
        hours = found.oldest["READY"] / 3600
        return Check(
            "jobs", "warn", f"{shown}; one waits for {hours:.1f} h", "start workers: wyloop up, or wyloop worker"
        )
    if found.oldest.get("RUNNING", 0.0) > RUNS_LONG:
        hours = found.oldest["RUNNING"] / 3600
        return Check("jobs", "warn", f"{shown}; one runs for {hours:.1f} h", "if its worker is gone: wyloop reconcile")
    return Check("jobs", "ok", shown)


def _dashboard() -> Check:
    from wyloop.platform.dashboard.templating import VIEWER, asset_path

    if asset_path("plotly.min.js") is None:
        return Check(
            "dashboard", "fail", "the package plotly lacks its script", "run: pip install --force-reinstall plotly"
        )
    if asset_path(VIEWER) is None:
        return Check("dashboard", "ok", "crystals are drawn with Plotly; deploy/fetch_viewer.sh brings 3Dmol.js")
    return Check("dashboard", "ok", "Plotly and 3Dmol.js are there")


def _prefect(settings: AllSettings) -> Check:
    status = next(row for row in services.status(settings) if row.name == "prefect")
    if status.state == "unhealthy":
        return Check("Prefect", "fail", f"no answer at {status.address}", "start it, or unset PREFECT_API_URL")
    if status.state in ("running", "external"):
        return Check("Prefect", "ok", f"answers at {status.address}")
    return Check("Prefect", "ok", f"{metadata.version('prefect')}, not running; 'wyloop up' starts it")


def _gpaw() -> Check:
    from wyloop.models.physics.dft import find_gpaw

    try:
        found = find_gpaw()
        return Check("GPAW", "ok", f"{found.kind} {' '.join(found.command)}".rstrip())
    except WyloopError as error:
        message, _, remedy = str(error).partition("; ")
        return Check("GPAW", "warn", message, remedy)


def _disk(data_folder: Path) -> Check:
    folder = next(folder for folder in (data_folder, *data_folder.parents) if folder.exists())
    free_gb = shutil.disk_usage(folder).free / 1e9
    detail = f"{free_gb:.1f} GB free for {data_folder}"
    if not os.access(folder, os.W_OK):
        return Check("disk", "fail", f"can't write to {folder}", "set WYLOOP_PLATFORM_DATA_FOLDER")
    if free_gb < processes.MIN_FREE_GB:
        return Check("disk", "fail", detail, "free some space or set WYLOOP_PLATFORM_DATA_FOLDER")
    if free_gb < WANTED_FREE_GB:
        return Check("disk", "warn", detail, f"{WANTED_FREE_GB:g} GB are better")
    return Check("disk", "ok", detail)


def _memory() -> Check:
    import psutil

    free_gb = psutil.virtual_memory().available / 1e9
    detail = f"{free_gb:.1f} GB available, {os.cpu_count()} cores"
    if free_gb < WANTED_MEMORY_GB:
        return Check("memory", "warn", detail, f"a discovery round wants {WANTED_MEMORY_GB:g} GB")
    return Check("memory", "ok", detail)


def _weights() -> Check:
    from wyloop.models.mpvae.checkpoint import SHIPPED, load_shipped

    try:
        load_shipped()
    except WyloopError as error:
        return Check("weights", "fail", str(error), "install wyloop again")
    return Check("weights", "ok", f"{SHIPPED.name}, {SHIPPED.stat().st_size / 1e6:.1f} MB")


def _starter_set() -> Check:
    from wyloop.stores.starter.read import starter_set

    try:
        return Check("starter set", "ok", f"{len(starter_set())} crystals")
    except (WyloopError, OSError) as error:
        return Check("starter set", "fail", str(error), "install wyloop again")
