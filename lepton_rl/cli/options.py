"""What the commands' options for results have in common."""

from pathlib import Path
from typing import Annotated, Any

import typer

Strict = Annotated[bool, typer.Option("--strict", help="Refuse a trace with jobs larger than the cluster.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]


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
