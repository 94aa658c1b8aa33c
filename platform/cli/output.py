"""What commands print: JSON for programs, tables for people, progress on a terminal."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from wyloop.platform.settings import AllSettings

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
TargetOption = Annotated[
    list[str],
    typer.Option("--target", "-t", help='Condition such as "0.5 < band_gap < 2.0"; repeat it for more.'),
]
Progress = Callable[[int, int], None]


def current_settings() -> "AllSettings":
    """Read the settings of this invocation; `--config` reaches them through the environment."""
    from wyloop.platform.settings import all_settings  # pydantic-settings: 0.3 s, not needed to show the help

    return all_settings()


def console(*, stderr: bool = False) -> "Console":
    """Return a console for tables; wide when the output is no terminal, so that no cell is cut."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=200)


def print_json(value: object) -> None:
    """Print a value as one JSON document."""
    typer.echo(json.dumps(value, default=_plain, indent=2, ensure_ascii=False))


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, as_json: bool, empty: str = "nothing found"
) -> None:
    """Print rows as a JSON list (all fields) or as a table (the columns asked for).

    Args:
        rows: What to print.
        columns: Field to heading, in order; headings carry the unit.
        as_json: JSON instead of a table.
        empty: What a person reads when there is no row.
    """
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        typer.echo(empty)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, heading in columns.items():
        is_number = all(isinstance(row.get(name), int | float | None) for row in rows)
        table.add_column(heading, justify="right" if is_number else "left", overflow="fold")
    for row in rows:
        table.add_row(*(cell(row.get(name)) for name in columns))
    console().print(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Print names and values, one a line; nothing is printed for None."""
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        if value is not None:
            typer.echo(f"{name:<{width}}  {cell(value)}")


def cell(value: object) -> str:
    """Return a value as people read it: short numbers, empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple | set):
        return ", ".join(cell(item) for item in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell(item)}" for name, item in value.items())
    return str(value)


def check_place(out: Path | None) -> None:
    """Refuse a file that can't be written before the work that would fill it.

    Raises:
        BadParameter: Its folder does not exist, or it is a folder itself.
    """
    if out is None:
        return
    if out.is_dir():
        raise typer.BadParameter(f"{out} is a folder; expected the name of a file")
    if not out.parent.is_dir():
        raise typer.BadParameter(f"no folder {out.parent}; expected one that exists; make it first")


def write_lines(path: Path, rows: Iterable[object]) -> int:
    """Write one JSON document a line; the file appears whole or not at all.

    Returns:
        Number of lines.
    """
    temporary = path.with_name(path.name + ".part")
    n_lines = 0
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps(row, default=_plain, ensure_ascii=False) + "\n")
                n_lines += 1
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return n_lines


@contextlib.contextmanager
def progress(description: str) -> Iterator[Progress]:
    """Show a progress bar on a terminal's standard error; give the function that moves it (done, total)."""
    shown = console(stderr=True)
    if not shown.is_terminal:
        yield lambda _done, _total: None
        return
    from rich.progress import Progress as Bars

    with Bars(console=shown, transient=True) as bars:
        task = bars.add_task(description, total=None)

        def move(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total or None)

        yield move


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, set | frozenset | tuple):
        return sorted(value) if not isinstance(value, tuple) else list(value)
    if hasattr(value, "item"):  # a numpy scalar
        return value.item()
    return str(value)
