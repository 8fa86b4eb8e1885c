"""The page of a benchmark: one HTML file that holds everything, pictures included."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_rl.agents.bundle import load_bundle
from lepton_rl.agents.sb3 import CURVE_FILE, mode_of
from lepton_rl.errors import counted
from lepton_rl.experiments.benchmark_config import BenchmarkConfig, ProtocolConfig
from lepton_rl.experiments.gantt import Schedule, gantt_figure
from lepton_rl.experiments.loader import resolved_yaml
from lepton_rl.experiments.outputs import file_part
from lepton_rl.experiments.page import DPI, PAGE_FILE, Picture, png, render, svg
from lepton_rl.experiments.pareto import ACROSS, FRONT_NOTE, UP, pareto_figure
from lepton_rl.experiments.plots import (
    cdf_figure,
    intervals_figure,
    learning_curve_figure,
    line_styles,
    pareto_points,
)
from lepton_rl.experiments.recording import record
from lepton_rl.experiments.run_plots import TIMELINES_NOTE, Run, heat_figure, heat_note, lines_figure
from lepton_rl.experiments.runner import Contender
from lepton_rl.experiments.runs import RUN_FILE, write_atomically
from lepton_rl.experiments.summary import HEADLINES, METRICS, WorkloadSummary
from lepton_rl.experiments.tables import TextTable, figure, interval, tables
from lepton_rl.experiments.windows import JCT_GRID, WindowBench, Windows
from lepton_rl.workloads import duration_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TAIL_SHOWN = 1.12  # a Gantt chart ends a little after the last submission, not with the last straggler


@dataclass(frozen=True, slots=True)
class _Section:
    """What the template shows of one workload."""

    title: str
    about: str
    notes: tuple[str, ...]
    verdicts: tuple[str, ...]
    tables: tuple[TextTable, ...]
    has_intervals: bool
    has_differences: bool
    intervals: tuple[Picture, ...]
    pictures: tuple[Picture, ...]


def write_report(
    config: BenchmarkConfig | ProtocolConfig,
    folder: Path,
    summaries: tuple[WorkloadSummary, ...],
    bench: WindowBench | None,
) -> Path:
    """Write the pictures and the page into the run folder, and return the page.

    Raises:
        MissingExtra: matplotlib or Jinja2 is not installed.
    """
    html = render(
        "report.html.jinja",
        kind="benchmark",
        name=config.name,
        description=config.description,
        sections=[_section(summary, folder, bench) for summary in summaries],
        curves=_learning_curves(bench, folder),
        experiment=resolved_yaml(config),
        run=json.loads((folder / RUN_FILE).read_text(encoding="utf-8")),
        metrics=METRICS,
    )
    write_atomically(folder / PAGE_FILE, html)
    return folder / PAGE_FILE


def verdict(summary: WorkloadSummary, metric: str) -> tuple[str, ...]:
    """Return what a table says in one sentence for each learned policy, or one on the heuristics."""
    rival = summary.strongest(metric)
    name = METRICS[metric].split(",")[0]
    learned = [contender for contender in summary.contenders if contender in summary.learned]
    if not learned or rival is None:
        ranked = sorted(summary.policies, key=lambda contender: summary.estimate(contender, metric).mean)
        others = "".join(
            f", then {contender.label} with {figure(summary.estimate(contender, metric).mean)}"
            for contender in ranked[1:2]
        )
        return (f"Lowest {name}: {ranked[0].label} with {interval(summary.estimate(ranked[0], metric))}{others}.",)
    return tuple(_against(summary, contender, rival, metric, name) for contender in learned)


def _against(summary: WorkloadSummary, contender: Contender, rival: Contender, metric: str, name: str) -> str:
    comparison = summary.comparison(contender, metric)
    assert comparison is not None, "a learned policy is no heuristic"
    difference = comparison.difference
    if difference.low is None or difference.high is None:
        outcome = "is lower than" if difference.mean < 0 else "is higher than"
        caution = "; without an interval this ranks nothing"
    elif difference.low > 0:
        outcome, caution = "loses to", ""
    elif difference.high < 0:
        outcome, caution = "beats", ""
    else:
        outcome, caution = "cannot be told from", "; the interval holds 0"
    windows = comparison.wins + comparison.losses + comparison.ties
    return (
        f"In {name}, {contender.label} ({interval(summary.estimate(contender, metric))}) {outcome} "
        f"{rival.label}, the strongest heuristic ({interval(summary.estimate(rival, metric))}): difference "
        f"{interval(difference, signed=True)}, won on {comparison.wins} of {counted(windows, 'window')} and lost on "
        f"{comparison.losses}{caution}."
    )


def _section(summary: WorkloadSummary, folder: Path, bench: WindowBench | None) -> _Section:
    several_rules = len({contender.rule for contender in summary.policies}) > 1
    intervals: list[Picture] = []
    pictures: list[Picture] = []
    verdicts: tuple[str, ...] = ()
    if not several_rules:
        verdicts = tuple(sentence for metric in HEADLINES for sentence in verdict(summary, metric))
        intervals = [svg(METRICS[metric], "", intervals_figure(summary, metric)) for metric in HEADLINES]
    if bench is not None:
        cdf = cdf_figure(summary, JCT_GRID)
        _save(cdf, folder / f"jct-{file_part(summary.workload)}.png")
        about = "Left: further up is better. Right: the tail, where lower is better."
        pictures.append(svg("Completion times of all jobs", about, cdf))
        if not several_rules:
            pictures.append(_pareto(summary, folder))
        pictures += _of_first_window(summary, folder, bench)
    return _Section(
        summary.workload,
        f"{summary.cluster}; {summary.windows}",
        summary.notes,
        verdicts,
        tuple(tables(summary)),
        summary.block is not None,
        not several_rules,
        tuple(intervals),
        tuple(pictures),
    )


def _pareto(summary: WorkloadSummary, folder: Path) -> Picture:
    figure = pareto_figure(pareto_points(summary, ACROSS, UP))
    _save(figure, folder / f"pareto-{file_part(summary.workload)}.png")
    intervals = " and their 95 % intervals" if summary.block is not None else ""
    return svg("Completion time against energy", f"Means over the windows{intervals}. {FRONT_NOTE}", figure)


def _of_first_window(summary: WorkloadSummary, folder: Path, bench: WindowBench) -> list[Picture]:
    """Replay the first window under two policies and draw both."""
    windows = bench.windows[summary.workload]
    trace = next(iter(windows.traces.values()))[0]
    styles = line_styles(summary)
    runs = [
        Run(
            contender.label,
            record(bench.policies[contender.label].build(), trace, windows.cluster, bench.timing),
            styles[contender],
        )
        for contender in _pair(summary)
    ]
    lines = lines_figure(runs)
    _save(lines, folder / f"timelines-{file_part(summary.workload)}.png")
    pictures = [_gantt(summary, folder, windows, runs), svg("The same window over time", TIMELINES_NOTE, lines)]
    for run in runs:
        heat = heat_figure(run.recording)
        _save(heat, folder / f"heat-{file_part(summary.workload)}-{file_part(run.label)}.png")
        pictures.append(png(f"Its GPUs under {run.label}", heat_note(run.recording), heat))
    return pictures


def _gantt(summary: WorkloadSummary, folder: Path, windows: Windows, runs: Sequence[Run]) -> Picture:
    schedules = []
    for run in runs:
        outcome = run.recording.outcome
        slowdown = figure(float(outcome.bounded_slowdown()[windows.counted].mean()))
        jct = duration_text(float(outcome.jct[windows.counted].mean()))
        title = f"{run.label}: mean bounded slowdown {slowdown}, mean completion time {jct}"
        schedules.append(Schedule(title, run.recording))
    outcome = runs[0].recording.outcome
    submit, longest = outcome.submit[windows.counted], float(outcome.run[windows.counted].max())
    begin = float(submit[0])
    arrivals = max(float(submit[-1]) - begin, longest / 100, 1.0)
    chart = gantt_figure(schedules, begin, begin + _TAIL_SHOWN * arrivals, "the first counted submission")
    _save(chart, folder / f"gantt-{file_part(summary.workload)}.png")
    note = (
        f"The first window, from the first to shortly after the last of its {len(submit):,} counted "
        "submissions; one colour for each job, grey is idle. The figures in the titles are this window's."
    )
    return png("One window under two policies", note, chart)


def _pair(summary: WorkloadSummary) -> list[Contender]:
    """Return whom to draw: a learned policy and its strongest rival, or the strongest and the first other."""
    metric = HEADLINES[0]
    rival = summary.strongest(metric)
    learned = [contender for contender in summary.contenders if contender in summary.learned]
    others = [contender for contender in summary.policies if contender != rival]
    chosen = [*learned[:1], *([rival] if rival else []), *others]
    return list(dict.fromkeys(chosen))[:2]


def _learning_curves(bench: WindowBench | None, folder: Path) -> list[Picture]:
    """Draw the training of each bundle whose run folder is beside it."""
    found = []
    for label, policy in (bench.policies if bench is not None else {}).items():
        if not policy.is_learned:
            continue
        places = (Path(policy.name) / CURVE_FILE, Path(policy.name).parent / CURVE_FILE)
        file = next((place for place in places if place.is_file()), None)
        curve = learning_curve_figure(file, label, _kept(policy.name)) if file is not None else None
        if curve is not None:
            _save(curve, folder / f"learning-curve-{file_part(label)}.png")
            found.append(svg(f"How {label} learned", "", curve))
    return found


def _kept(bundle: str) -> tuple[int, str] | None:
    """Return steps and mode of the evaluation that a bundle's weights were chosen by; None where it does not say."""
    policy = load_bundle(bundle)
    steps = policy.about.get("best_at_steps")
    return (steps, mode_of(policy.sample)) if isinstance(steps, int) else None


def _save(figure: "Figure", path: Path) -> None:
    figure.savefig(path, dpi=DPI)
