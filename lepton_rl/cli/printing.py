"""What the commands print besides their results."""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from typing import Any

import typer


class Interrupted(Exception):
    """Ctrl-C, with what it leaves in words: the parser would drop a KeyboardInterrupt's."""


@contextmanager
def keeping_what_ctrl_c_says() -> Iterator[None]:
    """Turn Ctrl-C into an exception whose words reach `main`."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted(*stop.args) from None


def note(text: str) -> None:
    """Print one line on standard error."""
    print(text, file=sys.stderr, flush=True)


def only_results_on_stdout() -> AbstractContextManager[Any]:
    """Send to standard error what is printed inside, by a policy of the user's own, say."""
    return redirect_stdout(sys.stderr)


def print_json(value: Any) -> None:
    """Print one JSON object; numbers are unrounded, what is no number is null."""
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def announce_compilation() -> None:
    """Say that the first run takes longer, where no compiled kernel is at hand."""
    from lepton_rl.core.jit import kernel_cache_folder

    folder = kernel_cache_folder()
    if folder is None or not any(folder.glob("*.nbi")):
        note("compiling the simulator for this machine (once, about half a minute)")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
