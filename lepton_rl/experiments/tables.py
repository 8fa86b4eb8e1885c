"""A benchmark's results as text: rich tables, Markdown, CSV. All three show the same cells."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lepton_rl.core.metrics import SMALLEST
from lepton_rl.experiments.statistics import Comparison, Estimate, estimate, estimate_interquartile_mean
from lepton_rl.experiments.summary import HEADLINES, METRICS, OPTIMUM_GAP, WorkloadSummary

# The quantiles over jobs that stand beside a mean over jobs.
_QUANTILES = {
    "mean_bounded_slowdown": ("p50_bounded_slowdown", "p99_bounded_slowdown"),
    "mean_jct": ("p50_jct", "p99_jct"),
}
_TITLES = {"mean_bounded_slowdown": "Bounded slowdown", "mean_jct": "Job completion time, s"}
_OTHERS = {
    "mean_wait": "mean wait, s",
    "p99_wait": "p99 wait, s",
    "max_wait": "max wait, s",
    "utilization": "utilization",
    "fragmentation": "fragmentation",
    "fairness": "fairness",
    "energy_kwh": "energy, kWh",
}
_COSTS = {"electricity_usd": "electricity, USD", "carbon_kg": "carbon, kg", "rent_usd": "rent, USD"}
_DEADLINES = {"deadlines_met": "share met", "mean_tardiness": "mean tardiness, s"}
_OPTIMAL = 1e-5  # per cent; the solver rounds slowdowns' weights to less
_NARROWEST = 120  # characters; a table is not squeezed below that


@dataclass(frozen=True, slots=True)
class TextTable:
    """A title, column heads and rows of text; `best` is the row to stress, `learned` those of agents."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: int | None = None
    learned: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Block:
    """What is printed of one workload: what was run, what a reader should know, the tables."""

    heading: str
    notes: tuple[str, ...]
    tables: tuple[TextTable, ...]


def block(summary: WorkloadSummary) -> Block:
    """Return what is printed of a workload of jobs."""
    heading = f"{summary.workload} on {summary.cluster}: {summary.windows}"
    return Block(heading, summary.notes, tuple(tables(summary)))


def tables(summary: WorkloadSummary) -> list[TextTable]:
    """Return the tables of one workload."""
    if len({contender.rule for contender in summary.policies}) > 1:
        return [_by_rule(summary, metric) for metric in HEADLINES]
    learned = frozenset(i for i, contender in enumerate(summary.contenders) if contender in summary.learned)
    found = [_headline(summary, metric, learned) for metric in HEADLINES]
    middle = tuple(
        (
            contender.label,
            *(
                interval(estimate_interquartile_mean(summary.samples[contender][metric], summary.block))
                for metric in HEADLINES
            ),
        )
        for contender in summary.contenders
    )
    what = "Interquartile means [95 % interval]" if summary.block is not None else "Interquartile means"
    heads = ("policy", *(METRICS[metric] for metric in HEADLINES))
    costs = {metric: head for metric, head in _COSTS.items() if metric in summary.metrics}
    gaps = [] if summary.optimum is None else [_gaps(summary, summary.optimum[1], learned)]
    return [
        *gaps,
        *found,
        TextTable(what, heads, middle, None, learned),
        _means("Other means", _OTHERS, summary, learned),
        *([_means("Means of costs", costs, summary, learned)] if costs else []),
        *([_deadlines(summary, learned)] if _some_missed(summary) else []),
    ]


def _some_missed(summary: WorkloadSummary) -> bool:
    """Whether a policy missed a deadline; where no job has one, none is missed."""
    return any(bool((samples["deadlines_met"] < 1.0).any()) for samples in summary.samples.values())


def _deadlines(summary: WorkloadSummary, learned: frozenset[int]) -> TextTable:
    """Return a table of deadlines, with intervals."""
    rows = tuple(
        (contender.label, *(interval(summary.estimate(contender, metric)) for metric in _DEADLINES))
        for contender in summary.contenders
    )
    what = "means [95 % interval]" if summary.block is not None else "means"
    return TextTable(f"Deadlines: {what}", ("policy", *_DEADLINES.values()), rows, None, learned)


def _means(title: str, heads: Mapping[str, str], summary: WorkloadSummary, learned: frozenset[int]) -> TextTable:
    rows = tuple(
        (contender.label, *(figure(summary.estimate(contender, metric).mean) for metric in heads))
        for contender in summary.contenders
    )
    return TextTable(title, ("policy", *heads.values()), rows, None, learned)


def figure(value: float | None) -> str:
    """Return a number in four digits: 12,346 or 0.1235."""
    if value is None:
        return "-"
    if abs(value) < SMALLEST:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 0.01 else f"{value:.1e}"


def interval(estimate: Estimate, signed: bool = False) -> str:
    """Return "mean [low, high]", or the mean alone."""
    mean = figure(estimate.mean)
    mean = f"+{mean}" if signed and estimate.mean > 0 else mean
    return mean if estimate.low is None else f"{mean} [{figure(estimate.low)}, {figure(estimate.high)}]"


def print_block(block: Block, console: Console) -> None:
    """Print one workload's tables."""
    if not console.is_terminal or console.width < _NARROWEST:
        console = Console(file=console.file, width=_NARROWEST)
    console.print(f"\n{block.heading}", style="bold", highlight=False, markup=False)
    for note in block.notes:
        console.print(note, highlight=False, markup=False)
    for text in block.tables:
        table = Table(title=text.title, title_justify="left", box=None, pad_edge=False, title_style="italic")
        for index, head in enumerate(text.heads):
            table.add_column(head, justify="left" if index == 0 else "right", no_wrap=index == 0)
        for index, row in enumerate(text.rows):
            table.add_row(*row, style="bold" if index == text.best else None)
        console.print()
        console.print(table)


def markdown(name: str, description: str, blocks: Sequence[Block]) -> str:
    """Return all tables as Markdown."""
    lines = [f"# {name}", ""]
    if description:
        lines += [description, ""]
    for block in blocks:
        lines += [f"## {block.heading}", ""]
        lines += [f"- {note}" for note in block.notes] + ([""] if block.notes else [])
        for text in block.tables:
            lines += [f"{text.title}", ""]
            lines += [_markdown_row(text.heads), f"|---|{'---:|' * (len(text.heads) - 1)}"]
            for index, row in enumerate(text.rows):
                lines.append(_markdown_row([f"**{cell}**" for cell in row] if index == text.best else row))
            lines.append("")
    return "\n".join(lines)


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as CSV, unrounded; what is not known is empty, {"a": {"b": 1}} is a column a_b."""
    flat = [_flat(row) for row in rows]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in row.items():
        inside = {f"{name}_{part}": figure for part, figure in value.items()} if isinstance(value, dict) else None
        found.update(inside or {name: value})
    return found


def _headline(summary: WorkloadSummary, metric: str, learned: frozenset[int]) -> TextTable:
    rival = summary.strongest(metric)
    against = f"difference to {rival.label}" if rival else "difference"
    rows = []
    means = []
    for contender in summary.contenders:
        estimate = summary.estimate(contender, metric)
        means.append(estimate.mean)
        quantiles = (figure(summary.estimate(contender, name).mean) for name in _QUANTILES[metric])
        rows.append(
            (
                contender.label,
                interval(estimate),
                *quantiles,
                *_against(summary.comparison(contender, metric), contender == rival),
            )
        )
    what = "mean [95 % interval]" if summary.block is not None else "mean"
    heads = ("policy", what, "p50 of jobs", "p99 of jobs", against, "won–lost–tied")
    best = means.index(min(means[: len(summary.policies)]))  # the yardstick is the last
    return TextTable(f"{_TITLES[metric]} (lower is better)", heads, tuple(rows), best, learned)


def _gaps(summary: WorkloadSummary, objective: str, learned: frozenset[int]) -> TextTable:
    """Return how far each policy is from the optimum of each window, in per cent."""
    rows = []
    for contender in summary.policies:
        gaps = 100.0 * summary.samples[contender][OPTIMUM_GAP]
        optimal = int(np.count_nonzero(gaps <= _OPTIMAL))
        cells = (interval(estimate(gaps, summary.block)), figure(float(np.median(gaps))), figure(float(gaps.max())))
        rows.append((contender.label, *cells, f"{optimal} of {len(gaps)}"))
    means = [float(summary.samples[contender][OPTIMUM_GAP].mean()) for contender in summary.policies]
    what = "mean [95 % interval]" if summary.block is not None else "mean"
    heads = ("policy", what, "median", "largest", "optimal windows")
    title = f"Gap to the optimum in {METRICS[objective].split(',')[0]}, %"
    return TextTable(title, heads, tuple(rows), means.index(min(means)), learned)


def _against(comparison: Comparison | None, is_rival: bool) -> tuple[str, str]:
    if comparison is None:
        return ("strongest heuristic" if is_rival else "-"), "-"
    return (
        interval(comparison.difference, signed=True),
        f"{comparison.wins}–{comparison.losses}–{comparison.ties}",
    )


def _by_rule(summary: WorkloadSummary, metric: str) -> TextTable:
    """Return a table of means with one row for each rule and one column for each policy."""
    policies = list(dict.fromkeys(contender.policy for contender in summary.contenders))
    cells: dict[tuple[str, str | None], dict[str, str]] = {}
    for contender in summary.contenders:
        row = cells.setdefault((contender.rule, contender.blocking), {})
        row[contender.policy] = f"{summary.estimate(contender, metric).mean:,.2f}"
    rows = [
        (f"{rule}, {blocking}", *(row.get(policy, "") for policy in policies))
        for (rule, blocking), row in cells.items()
    ]
    return TextTable(f"{METRICS[metric]} (lower is better)", ("rule, blocking", *policies), tuple(rows))


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
