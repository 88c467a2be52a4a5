"""`tandem`: the one command, put together from what is installed.

A command is an entry point of the group `tandem.commands`: its name is the command's, its value a function with typer's
annotations, or a typer app where it has commands of its own. A command's module is imported when it is called, so that one
command does not wait for another's imports, nor fail for what only the other needs.
"""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from backend.shared.domain.errors import TandemError
from backend.shared.observability.logging import configure_logging

COMMANDS_GROUP = "tandem.commands"
EXIT_BAD_INPUT = 2


class CommandUnavailableError(TandemError):
    """A command is known, but what it needs is not installed."""


class InstalledCommands(TyperGroup):
    """A group whose commands are looked up among the entry points."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted({*super().list_commands(ctx), *_installed()})

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = _installed().get(cmd_name)
        if entry is None:
            return super().get_command(ctx, cmd_name)
        try:
            return _command(entry)
        except CommandUnavailableError as error:
            if ctx.invoked_subcommand is None and _only_help_is_asked(sys.argv[1:]):
                return _placeholder(entry.name, str(error))
            raise


app = typer.Typer(
    name="tandem",
    cls=InstalledCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # it shows local variables, and those hold URLs with passwords
)


def _show_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if asked:
        typer.echo(f"tandem {version('tandem')}")
        raise typer.Exit


@app.callback()
def tandem(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Move services off a shared legacy database: no downtime, no lost write, a way back at every step."""
    # A command's output is read by people and programs: what is logged must not stand between. One that runs for long,
    # like the relay, says for itself what it logs.
    configure_logging("tandem", level="ERROR")


def main() -> None:
    """The console script. What Tandem raises on purpose becomes one line on stderr and exit code 2."""
    try:
        app()
    except TandemError as error:
        typer.echo(f"tandem: {one_line(error)}", err=True)
        raise SystemExit(EXIT_BAD_INPUT) from None


def one_line(error: BaseException) -> str:
    """An error's message on one line; its type, where it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


def _installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=COMMANDS_GROUP)}


def _command(entry: EntryPoint) -> Any:
    try:
        loaded = entry.load()
    except (ImportError, AttributeError) as error:
        raise CommandUnavailableError(
            f"the command '{entry.name}' is not available here: {one_line(error)}"
        ) from error
    if not isinstance(loaded, typer.Typer):
        single = typer.Typer(add_completion=False)
        single.command()(loaded)
        loaded = single
    command = typer.main.get_command(loaded)
    command.name = entry.name
    return command


def _placeholder(name: str, reason: str) -> Any:
    app_in_its_place = typer.Typer(add_completion=False)
    app_in_its_place.command(help=reason)(lambda: None)
    command = typer.main.get_command(app_in_its_place)
    command.name = name
    return command


def _only_help_is_asked(arguments: list[str]) -> bool:
    return not arguments or arguments[0].startswith("-")


if __name__ == "__main__":
    main()
