"""`wyloop config`: the settings of every layer."""

from dataclasses import asdict

import typer

from wyloop.platform.cli.output import JsonOption, current_settings, print_rows

app = typer.Typer(no_args_is_help=True, help="Settings of every layer.")


@app.callback()
def config() -> None:
    """Settings of every layer."""


@app.command("show")
def show(as_json: JsonOption = False) -> None:
    """Show every setting with its value and source; secrets are masked."""
    settings = current_settings()
    rows = [asdict(row) for row in settings.rows()]
    columns = {"layer": "layer", "name": "setting", "value": "value", "source": "source", "variable": "variable"}
    print_rows(rows, columns, as_json=as_json)
