"""What the options of several commands have in common."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

Strict = Annotated[bool, typer.Option("--strict", help="Refuse a trace with jobs larger than the cluster.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]

MOST_SECONDS = 1e9
"""That a preemption or a migration may cost: as many as the simulator takes."""


def command_group(help: str, epilog: str) -> typer.Typer:
    """Return a group of commands that prints its help where none of them is named."""
    app = typer.Typer(rich_markup_mode=None, help=help, epilog=epilog)

    @app.callback(invoke_without_command=True)
    def show_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return app


def output_option(help: str) -> Any:
    """Return an option that names a file or folder to write; an empty text would mean the working directory."""
    return typer.Option(parser=_named, metavar="PATH", help=help)


def output_argument(metavar: str, help: str) -> Any:
    """Return an argument of the same kind."""
    return typer.Argument(parser=_named, metavar=metavar, help=help)


def _named(value: str | Path) -> Path:
    if not str(value).strip():
        raise typer.BadParameter("a path is needed, not an empty text")
    return Path(value)


def needed(what: str) -> Callable[[str], str]:
    """Return a parser of a text that names something: an empty one is a variable that was not set."""

    def text(value: str) -> str:
        if not value.strip():
            raise typer.BadParameter(f"{what} is needed, not an empty text")
        return value

    return text


def seconds_option(help: str) -> Any:
    """Return an option that takes seconds from 0 to MOST_SECONDS."""
    return typer.Option(parser=_seconds, metavar="SECONDS", help=help)


def _seconds(value: str | float) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0.0 <= seconds <= MOST_SECONDS:
        raise typer.BadParameter(f"{value!r} is no number of seconds from 0 to {MOST_SECONDS:,.0f}; write e.g. 60")
    return seconds
