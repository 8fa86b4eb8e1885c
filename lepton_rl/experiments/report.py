"""The page of a benchmark: one HTML file that holds everything, pictures included."""

import base64
import io
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from lepton_rl.agents.bundle import load_bundle
from lepton_rl.agents.sb3 import CURVE_FILE, mode_of
from lepton_rl.core import ClusterSpec
from lepton_rl.errors import counted, missing_extra
from lepton_rl.experiments.benchmark_config import BenchmarkConfig, ProtocolConfig
from lepton_rl.experiments.gantt import record
from lepton_rl.experiments.loader import resolved_yaml
from lepton_rl.experiments.outputs import file_part
from lepton_rl.experiments.plots import (
    Schedule,
    cdf_figure,
    gantt_figure,
    intervals_figure,
    learning_curve_figure,
)
from lepton_rl.experiments.runner import Contender
from lepton_rl.experiments.runs import RUN_FILE, write_atomically
from lepton_rl.experiments.summary import HEADLINES, METRICS, WorkloadSummary
from lepton_rl.experiments.tables import TextTable, figure, interval, tables
from lepton_rl.experiments.windows import JCT_GRID, WindowBench
from lepton_rl.workloads import duration_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TEMPLATE = "report.html.jinja"
_TAIL_SHOWN = 1.12  # a Gantt chart ends a little after the last submission, not with the last straggler


@dataclass(frozen=True, slots=True)
class _Picture:
    title: str
    note: str
    source: str  # data: address


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
    intervals: tuple[_Picture, ...]
    pictures: tuple[_Picture, ...]


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
    try:
        from jinja2 import Environment
    except ImportError:
        raise missing_extra("Jinja2", "report") from None
    template = (resources.files("lepton_rl.experiments") / _TEMPLATE).read_text(encoding="utf-8")
    curves = _learning_curves(bench, folder)
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    html = page.render(
        name=config.name,
        description=config.description,
        sections=[_section(summary, folder, bench) for summary in summaries],
        curves=curves,
        experiment=resolved_yaml(config),
        run=json.loads((folder / RUN_FILE).read_text(encoding="utf-8")),
        metrics=METRICS,
    )
    write_atomically(folder / "report.html", html)
    return folder / "report.html"


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
    intervals: list[_Picture] = []
    pictures: list[_Picture] = []
    verdicts: tuple[str, ...] = ()
    if not several_rules:
        verdicts = tuple(sentence for metric in HEADLINES for sentence in verdict(summary, metric))
        intervals = [_Picture(METRICS[metric], "", _svg(intervals_figure(summary, metric))) for metric in HEADLINES]
    if bench is not None:
        cdf = cdf_figure(summary, JCT_GRID)
        _save(cdf, folder / f"jct-{file_part(summary.workload)}.png")
        pictures.append(
            _Picture(
                "Completion times of all jobs",
                "Left: further up is better. Right: the tail, where lower is better.",
                _svg(cdf),
            )
        )
        pictures.append(_gantt(summary, folder, bench))
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


def _gantt(summary: WorkloadSummary, folder: Path, bench: WindowBench) -> _Picture:
    """Replay the first window under two policies and draw both schedules."""
    windows = bench.windows[summary.workload]
    trace = next(iter(windows.traces.values()))[0]
    schedules = []
    for contender in _pair(summary):
        policy = bench.policies[contender.label].build()
        outcome, segments = record(policy, trace, windows.cluster, bench.timing)
        slowdown = figure(float(outcome.bounded_slowdown()[windows.counted].mean()))
        jct = duration_text(float(outcome.jct[windows.counted].mean()))
        title = f"{contender.label}: mean bounded slowdown {slowdown}, mean completion time {jct}"
        schedules.append(Schedule(title, segments))
    counted = trace[windows.counted]
    begin = float(counted.submit_time[0])
    arrivals = max(float(counted.submit_time[-1]) - begin, float(counted.run_time.max()) / 100, 1.0)
    cluster: ClusterSpec = windows.cluster
    chart = gantt_figure(schedules, cluster.gpus, cluster.first_gpus, begin, begin + _TAIL_SHOWN * arrivals)
    path = folder / f"gantt-{file_part(summary.workload)}.png"
    _save(chart, path)
    note = (
        f"The first window, from the first to shortly after the last of its {len(counted):,} counted "
        "submissions; one colour for each job, grey is idle. The figures in the titles are this window's."
    )
    address = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return _Picture("One window under two policies", note, address)


def _pair(summary: WorkloadSummary) -> list[Contender]:
    """Return whom to draw: a learned policy and its strongest rival, or the strongest and the first other."""
    metric = HEADLINES[0]
    rival = summary.strongest(metric)
    learned = [contender for contender in summary.contenders if contender in summary.learned]
    others = [contender for contender in summary.policies if contender != rival]
    chosen = [*learned[:1], *([rival] if rival else []), *others]
    return list(dict.fromkeys(chosen))[:2]


def _learning_curves(bench: WindowBench | None, folder: Path) -> list[_Picture]:
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
            found.append(_Picture(f"How {label} learned", "", _svg(curve)))
    return found


def _kept(bundle: str) -> tuple[int, str] | None:
    """Return steps and mode of the evaluation that a bundle's weights were chosen by; None where it does not say."""
    policy = load_bundle(bundle)
    steps = policy.about.get("best_at_steps")
    return (steps, mode_of(policy.sample)) if isinstance(steps, int) else None


def _save(figure: "Figure", path: Path) -> None:
    figure.savefig(path, dpi=130)


def _svg(figure: "Figure") -> str:
    out = io.BytesIO()
    figure.savefig(out, format="svg", transparent=True)
    return f"data:image/svg+xml;base64,{base64.b64encode(out.getvalue()).decode()}"
