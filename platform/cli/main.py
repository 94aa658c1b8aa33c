"""The command `wyloop`: parse, run one function, turn every failure into one line.

Command modules import what is heavy inside their functions: the help must show in half a second.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wyloop.models.errors import WyloopError
from wyloop.platform.cli import api, calculation, campaign, candidate, config, db, encode, generate, job, model, service
from wyloop.platform.cli.discover import discover
from wyloop.platform.cli.reconcile import reconcile

if TYPE_CHECKING:
    from logging import LogRecord

INTERRUPTED = 130  # what a shell expects after Ctrl-C

app = typer.Typer(
    name="wyloop",
    help="Active discovery of inorganic crystals: propose, screen, calculate, learn, again.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # coloured help takes twice as long
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("discover")(discover)
app.command("up")(service.up)
app.command("down")(service.down)
app.command("status")(service.status)
app.command("doctor")(service.doctor)
app.command("encode")(encode.encode)
app.command("generate")(generate.generate)
app.command("worker")(job.worker)
app.command("serve-flows")(service.serve_flows)
app.command("reconcile")(reconcile)
app.add_typer(db.app, name="db")
app.add_typer(model.app, name="model")
app.add_typer(campaign.app, name="campaign")
app.add_typer(candidate.app, name="candidate")
app.add_typer(calculation.app, name="calculation")
app.add_typer(job.app, name="job")
app.add_typer(api.app, name="api")
app.add_typer(config.app, name="config")


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version  # costs a tenth of the help's time

        typer.echo(f"wyloop {version('wyloop')}")
        raise typer.Exit


@app.callback()
def options(
    config_file: Annotated[
        Path | None, typer.Option("--config", help="Settings file; without it wyloop.toml in the current folder.")
    ] = None,
    is_verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more about what is being done.")] = False,
    log_format: Annotated[
        str,
        typer.Option("--log-format", envvar="WYLOOP_LOG_FORMAT", help="text, or json: one object a line, with ids."),
    ] = "text",
    is_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Active discovery of inorganic crystals: propose, screen, calculate, learn, again."""
    _set_up_logging(is_verbose=is_verbose, log_format=log_format)
    if config_file is not None:
        os.environ["WYLOOP_CONFIG"] = str(config_file.absolute())  # our other processes read the same file


def main() -> None:
    """Run the command line and end the process with its exit status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: The words after `wyloop`.

    Returns:
        Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    command = typer.main.get_command(app)
    try:
        status = command(list(arguments), prog_name="wyloop", standalone_mode=False)
    except WyloopError as error:
        return _fail(str(error))
    except typer.TyperException as error:  # wrong usage
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(error.format_message())
            return 2
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "wyloop"
        return _fail(f"{error.format_message().rstrip('.')}; see '{path} --help'", status=error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except BrokenPipeError:  # the reader, such as head, has what it wanted
        _discard_output()
        return 0
    except OSError as error:
        return _fail(_explain(error))
    except Exception as error:  # noqa: BLE001 - the one place where a fault of ours becomes a line and a file
        return _fail(f"unexpected {type(error).__name__}: {error}; the traceback is in {_write_traceback()}")
    if status == INTERRUPTED:
        return _fail("interrupted; what was finished is kept, the same command continues", status=INTERRUPTED)
    return status if isinstance(status, int) else 0


def _fail(message: str, *, status: int = 1) -> int:
    line = " ".join(message.split())
    typer.secho(f"error: {line}", fg=typer.colors.RED, err=True)
    return status


def _explain(error: OSError) -> str:
    name = f"{error.filename}: " if error.filename else ""
    remedy = "; free some space and run the command again" if error.errno == 28 else ""
    return f"{name}{error.strerror or error}{remedy}"


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_traceback() -> Path:
    import traceback

    from wyloop.platform.cli.output import current_settings

    try:
        folder = current_settings().data_folder / "logs"
        folder.mkdir(parents=True, exist_ok=True)
    except (WyloopError, OSError):
        folder = Path(tempfile.gettempdir())
    path = folder / f"wyloop-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.log"
    path.write_text(f"wyloop {' '.join(sys.argv[1:])}\n{traceback.format_exc()}")
    return path


def _set_up_logging(*, is_verbose: bool, log_format: str) -> None:
    import logging

    from wyloop.platform.logs import LOG_FORMATS, JsonFormatter

    if log_format not in LOG_FORMATS:
        raise typer.BadParameter(f"log format {log_format!r}; expected one of {', '.join(LOG_FORMATS)}")

    logging.captureWarnings(True)
    logging.basicConfig(
        level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr, force=True
    )
    for handler in logging.getLogger().handlers:  # Prefect's loggers hand on what their own level lets pass
        handler.setLevel(logging.INFO if is_verbose or log_format == "json" else logging.WARNING)
        if log_format == "json":
            handler.setFormatter(JsonFormatter())
            os.environ["WYLOOP_LOG_FORMAT"] = log_format  # our other processes write the same
    logging.getLogger("wyloop").setLevel(logging.INFO if is_verbose or log_format == "json" else logging.WARNING)
    # FireWorks prints a line at every look at an empty LaunchPad, and sets its loggers' levels itself.
    for name in ("rocket.launcher", "launchpad"):
        logging.getLogger(name).addFilter(_is_serious)
    # Warnings of libraries are no matter of the user's unless asked for.
    logging.getLogger("py.warnings").setLevel(logging.WARNING if is_verbose else logging.ERROR)


def _is_serious(record: "LogRecord") -> bool:
    return record.levelno >= 30  # warning


if __name__ == "__main__":
    main()
