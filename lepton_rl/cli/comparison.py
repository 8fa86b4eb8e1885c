"""The table of `simulate` and `evaluate`: a row for each figure, a column for each policy."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from lepton_rl.core.metrics import DESCRIPTIONS, SMALLEST, UNITS
from lepton_rl.errors import counted
from lepton_rl.experiments.simulate import LEADING_KEYS, Simulation

_KEYS = (*LEADING_KEYS, *(key for key in DESCRIPTIONS if key not in LEADING_KEYS))
_GAP = 2  # blanks between columns
Column = Sequence[str]


def print_comparison(simulations: Sequence[Simulation], console: Console | None = None) -> None:
    """Print runs of one trace side by side; where they are too many for the screen, in tables one below the other.

    Every table begins with the first run, which the others are compared with.
    """
    console = console or Console()
    first = simulations[0]
    jobs, cluster = counted(len(first.trace), "job"), first.outcome.cluster
    title = f"{first.trace.name}: {jobs} on {cluster}, requested times {first.trace.requested}"
    labels = ["metric", "blocking", "placement", "dropped", *(_label(key) for key in _known(first.summary()))]
    for number, columns in enumerate(_folded(labels, [_column(run) for run in simulations], console.width)):
        table = Table(title=None if number else title, title_justify="left", box=None, pad_edge=False)
        table.add_column(labels[0])
        for head, *_ in columns:
            table.add_column(head, justify="right")
        for row in zip(labels[1:], *(column[1:] for column in columns), strict=True):
            table.add_row(*row)
        if number:
            console.print()
        console.print(table, soft_wrap=True)


def _folded(labels: Column, columns: Sequence[Column], width: int) -> list[list[Column]]:
    """Return the columns of each table: as few tables as `width` allows, and these as narrow as their number allows."""
    first, *others = columns
    room = width - _wide(labels) - _GAP - _wide(first)
    tables = _within(room, others)
    while room > 0 and len(narrower := _within(room - 1, others)) == len(tables):
        room, tables = room - 1, narrower
    return [[first, *part] for part in tables]


def _within(room: int, columns: Sequence[Column]) -> list[list[Column]]:
    """Return the columns in parts of at most `room` signs, gaps included, or of a single column."""
    parts: list[list[Column]] = [[]]
    left = room
    for column in columns:
        left -= _GAP + _wide(column)
        if left < 0 and parts[-1]:
            parts.append([])
            left = room - _GAP - _wide(column)
        parts[-1].append(column)
    return parts


def _wide(column: Column) -> int:
    return max(map(len, column))


def _column(run: Simulation) -> Column:
    summary = run.summary()
    rules = (run.rules.blocking or "its own", run.rules.placement or "its own")
    return [run.policy, *rules, f"{run.dropped:,}", *(_figure(summary[key]) for key in _known(summary))]


def _known(summary: Mapping[str, object]) -> list[str]:
    """Metrics that the cluster can tell: a plain one names no prices."""
    return [key for key in _KEYS if key in summary]


def _label(key: str) -> str:
    return f"{key}, {UNITS[key]}" if key in UNITS else key


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) < SMALLEST:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"
