"""`lepton-rl node top`: a node in a terminal, live."""

from typing import Annotated

import typer

from lepton_rl.cli.node import State, connect


def top(
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    period: Annotated[float, typer.Option(min=0.2, max=3600.0, help="Seconds between frames.")] = 1.0,
    width: Annotated[int | None, typer.Option(min=40, max=500, help="Columns; the terminal's if left out.")] = None,
    state: State = None,
) -> None:
    """Show GPUs, jobs, queue and decisions, live, until Ctrl-C.

    Example: lepton-rl node top
    """
    from rich.console import Console

    from lepton_rl.node.top import watch

    console = Console(width=width)
    with connect(state) as client:
        watch(client, console, period, once=once)
