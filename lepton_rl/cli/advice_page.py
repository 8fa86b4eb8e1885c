"""What `lepton-rl advise` prints: what is worth it in sentences, all else that was tried in tables."""

import math
import shutil
import textwrap
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from lepton_rl.experiments.advice import Advice, Change, Report

_WIDTH = 100
_NARROWEST_TITLE = 24
_GAP = 2
_INDENT = "  "
_MUCH_LONGER = 1.25
_WHOLE_WORDS: Any = {"break_long_words": False, "break_on_hyphens": False}


def print_advice(report: "Report") -> None:
    """Print what is worth it in sentences, and the rest in tables."""
    _paragraph(f"{report.trace.name} on {report.cluster}", "")
    _paragraph(f"simulated on {report.simulated} ({_load(report.load)}), {_how(report)}", "")
    _paragraph(f"now: {report.present}: {_now(report)}", "")
    if report.one_run_jct > _MUCH_LONGER * report.now["mean_jct"].mean():
        _paragraph(
            f"note: in one run over these jobs the mean JCT is {_amount('mean_jct', report.one_run_jct)}: "
            "the windows show less of the queue (--windows 1)",
            "",
        )
    best = [advice for advice in report.advice if advice.worth and advice.beaten_by is None]
    typer.echo()
    _paragraph(_heading(report, bool(best)), "")
    for number, advice in enumerate(best, 1):
        _paragraph(f"{number}. {advice.sentence} {_effect(advice)}")
    _table("Better than now, but another of its kind is better", [a for a in report.advice if a.beaten_by is not None])
    _table("Tried, not worth it" if _is_sure(report) else "Tried", [a for a in report.advice if not a.worth])
    if report.left_out:
        typer.echo("\nNot tried")
        for entry in report.left_out:
            _paragraph(f"{entry.what}: {entry.why}")


def _is_sure(report: "Report") -> bool:
    """Return whether there are jobs enough for an interval."""
    return len(report.now["mean_jct"]) > 1


def _heading(report: "Report", is_any_worth: bool) -> str:
    if not _is_sure(report):
        return "Worth it: nothing can be said of so few jobs; from 100 on the mean JCT has an interval"
    return "Worth it, each change alone" if is_any_worth else "Worth it: nothing that was tried"


def _load(load: float) -> str:
    return f"offered load {load:.3g}" if math.isfinite(load) else "all jobs come at once"


def _how(report: "Report") -> str:
    if len(report.now["p99_wait"]) > 1:
        return "each begun on an empty cluster"
    return f"in one run: {'the mean JCT alone has' if _is_sure(report) else 'no figure has'} an interval"


def _now(report: "Report") -> str:
    from lepton_rl.experiments.advice import FIGURES

    return ", ".join(f"{FIGURES[name]} {_amount(name, values.mean())}" for name, values in report.now.items())


def _effect(advice: "Advice") -> str:
    """Return a sentence of every figure, the goal first and in full."""
    from lepton_rl.experiments.advice import FIGURES

    goal = advice.changes[advice.goal]
    amounts = f"from {_amount(advice.goal, goal.before)} to {_amount(advice.goal, goal.after)}"
    others = [f"{FIGURES[name]} {_percent(advice.changes[name])}" for name in _shown([advice]) if name != advice.goal]
    return f"Simulated: {FIGURES[advice.goal]} {_with_interval(advice.goal, goal)}, {amounts}; {', '.join(others)}."


def _table(title: str, advice: "list[Advice]") -> None:
    """Print a row for each change: its figures, that of its goal with its interval."""
    from lepton_rl.experiments.advice import FIGURES

    if not advice:
        return
    names = _shown(advice)
    rows = [[title, *(FIGURES[name] for name in names)]]
    for entry in advice:
        cells = [_cell(name, entry.changes.get(name), name == entry.goal) for name in names]
        rows.append([f"{_INDENT}{entry.title}", *cells])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    figures = sum(widths[1:]) + _GAP * (len(widths) - 1)
    widths[0] = min(widths[0], _width() - figures)
    typer.echo()
    if widths[0] < _NARROWEST_TITLE:
        _stacked(rows)
        return
    for first, *cells in rows:
        indent = 2 * _INDENT if first.startswith(_INDENT) else ""
        *above, last = textwrap.wrap(first, widths[0], drop_whitespace=True, subsequent_indent=indent, **_WHOLE_WORDS)
        for line in above:
            typer.echo(line)
        rest = (cell.rjust(width + _GAP) for cell, width in zip(cells, widths[1:], strict=True))
        typer.echo(f"{last.ljust(widths[0])}{''.join(rest)}")


def _stacked(rows: list[list[str]]) -> None:
    """Print each change above its figures, where the screen is too narrow for a table."""
    (title, *names), *changes = rows
    _paragraph(title, "")
    for first, *cells in changes:
        figures = ", ".join(f"{name} {cell}" for name, cell in zip(names, cells, strict=True))
        _paragraph(f"{first.strip()}: {figures}")


def _shown(advice: "list[Advice]") -> list[str]:
    """Return the figures of which anything is known; GPUs only where their number changes."""
    from lepton_rl.experiments.advice import FIGURES

    names = [name for name in FIGURES if any(name in entry.changes for entry in advice)]
    changes = any(entry.changes["gpus"].before != entry.changes["gpus"].after for entry in advice)
    return names if changes else [name for name in names if name != "gpus"]


def _cell(name: str, change: "Change | None", is_goal: bool) -> str:
    """Return a figure's change; "-" where the simulation says nothing of it."""
    if change is None:
        return "-"
    return _with_interval(name, change) if is_goal else _percent(change)


def _with_interval(name: str, change: "Change") -> str:
    """Return the change and its interval; a number of GPUs has none, for nothing of it is chance."""
    low, high = change.relative.low, change.relative.high
    if low is None or high is None or name == "gpus":
        return _percent(change)
    return f"{_percent(change)} [{_rounded(low)}, {_rounded(high)}]"


def _percent(change: "Change") -> str:
    return f"{_rounded(change.relative.mean)}%"


def _rounded(part: float) -> str:
    text = f"{100 * part:+.1f}"
    return "0" if text in ("+0.0", "-0.0") else text


def _amount(name: str, value: float) -> str:
    from lepton_rl.experiments.tables import figure

    units = {"mean_jct": " s", "p99_wait": " s", "energy_kwh": " kWh", "carbon_kg": " kg", "gpus": ""}
    return f"{figure(value)}{units.get(name, ' USD')}"


def _width() -> int:
    """Return the width of lines: a readable one, or that of the terminal where it is narrower."""
    return min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)


def _paragraph(text: str, indent: str = _INDENT) -> None:
    """Print a text in lines of a readable width, the later ones indented further."""
    typer.echo(textwrap.fill(text, _width(), initial_indent=indent, subsequent_indent=indent + _INDENT, **_WHOLE_WORDS))
