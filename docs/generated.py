"""Pages that MkDocs makes from the code at each build: every command with its options, and every setting."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

VIEW = Path(__file__).parents[1] / "build" / "docs_view" / "wyloop"
"""The modules of the four folders as one package, and nothing else: what the reference is read from."""


def on_startup(command: str, dirty: bool) -> None:  # noqa: ARG001, FBT001 - MkDocs' own
    """Make the view anew, of copies: links would not be followed. MkDocs calls it before it looks for paths."""
    shutil.rmtree(VIEW, ignore_errors=True)
    root = Path(__file__).parents[1]
    for name in ("models", "stores", "flows", "platform"):
        for module in (root / name).rglob("*.py"):
            copy = VIEW / module.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(module, copy)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages; MkDocs calls it."""
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    files.append(File.generated(config, "reference/settings.md", content=settings()))
    return files


def commands() -> str:
    """Return the page of all commands."""
    import typer

    from wyloop.platform.cli.main import app

    parts = ["# Commands\n\nEvery command that prints data takes `--json`; `-h` shows the same as this page.\n"]
    for path, command in _walk(typer.main.get_command(app), "wyloop"):
        parts.append(f"\n## `{path}`\n\n{_help(command)}\n")
        rows = [_option(one) for one in command.params if getattr(one, "name", "") != "help"]
        if rows:
            parts.append("\n| option | meaning |\n| --- | --- |\n" + "".join(rows))
    return "".join(parts)


def _walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - click's
    subcommands = getattr(command, "commands", {})
    if not subcommands:
        yield path, command
    for name in sorted(subcommands):
        yield from _walk(subcommands[name], f"{path} {name}")


def _help(command: Any) -> str:  # noqa: ANN401 - click's
    return " ".join((command.help or "").split())


def _option(one: Any) -> str:  # noqa: ANN401 - click's
    names = ", ".join(f"`{name}`" for name in one.opts) if one.param_type_name == "option" else f"`{one.name.upper()}`"
    text = " ".join((getattr(one, "help", "") or "").split()).replace("|", "\\|")
    return f"| {names} | {text} |\n"


def settings() -> str:
    """Return the page of all settings."""
    from wyloop.platform.settings import LAYERS

    parts = [
        "# Settings\n\nFrom the environment, else from `wyloop.toml` in the current folder (or `--config FILE`), "
        "else the default. `wyloop config show` prints each with its source, secrets masked.\n"
    ]
    for layer, model in LAYERS.items():
        parts.append(
            f"\n## [{layer}]\n\n| variable | in `wyloop.toml` | meaning | default |\n| --- | --- | --- | --- |\n"
        )
        for name, field in model.model_fields.items():
            default = "" if field.is_required() or field.default_factory else f"`{field.default}`"
            text = (field.description or "").replace("|", "\\|")
            parts.append(f"| `WYLOOP_{layer.upper()}_{name.upper()}` | `{name}` | {text} | {default} |\n")
    return "".join(parts)
