"""Mean completion time against energy: whole runs under several policies, or the plans for one instant."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lepton_rl.agents import Genetic, check_requested_times, run_policy
from lepton_rl.agents.plan_front import non_dominated
from lepton_rl.core import ClusterSpec, Policy, Snapshot
from lepton_rl.core.units import JOULES_PER_KWH
from lepton_rl.errors import ConfigError, counted, missing_extra
from lepton_rl.simulator import SimulatedCluster
from lepton_rl.workloads import Trace

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ON_FRONT, DOMINATED = "#c2410c", "#1e5a8a"
_GRID = "#e5e7eb"
_LABEL = (0.2, 0.035)
"""Width and height of a label, in parts of the picture."""


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A run, or a plan.

    Attributes:
        label: the policy with its settings, or the plan's number.
        mean_jct: seconds.
        added_kwh: energy above the draw of idle GPUs.
        on_front: whether no other is as good in both and better in one.
        details: further figures by name.
    """

    label: str
    mean_jct: float
    added_kwh: float
    on_front: bool
    details: dict[str, float | str]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        plain = asdict(self)
        details: dict[str, Any] = plain.pop("details")
        return plain | details


def front_of_runs(trace: Trace, cluster: ClusterSpec, policies: Sequence[tuple[str, Policy]]) -> list[FrontPoint]:
    """Return a point for each labelled policy on the whole trace, shortest mean JCT first.

    Energy is counted above idle draw: the GPUs of a cluster that is there anyway draw that too, and over the makespan
    of a trace it says more about its last job than about the policy. `energy_kwh` has it.

    Raises:
        TraceError: a job can never run on this cluster, or a policy needs requested times that are absent.
    """
    for _, policy in policies:
        check_requested_times(policy, trace)
    found = []
    for label, policy in policies:
        outcome = run_policy(policy, trace, cluster)
        metrics = outcome.metrics()
        idle = cluster.idle_power_w * cluster.gpus * outcome.makespan / JOULES_PER_KWH
        details = {name: metrics[name] for name in ("mean_bounded_slowdown", "energy_kwh", "makespan")}
        found.append((label, metrics["mean_jct"], metrics["energy_kwh"] - idle, details))
    return _points(found)


def front_of_plans(trace: Trace, cluster: ClusterSpec, policy: Genetic, job: int) -> list[FrontPoint]:
    """Return the plans on the front when the trace's job of this number (from 1) is submitted, under this policy.

    Raises:
        ConfigError: there is no such job, or no job waits then.
    """
    check_requested_times(policy, trace)
    if not 1 <= job <= len(trace):
        raise ConfigError(f"{trace.name} has {counted(len(trace), 'job')}, none of number {job}")
    snapshot = _snapshot_at(trace, cluster, policy, float(trace.submit_time[job - 1]))
    if snapshot.running_count == len(snapshot.jobs):
        raise ConfigError(f"no job waits when job {job} of {trace.name} is submitted: there is nothing to plan")
    found = []
    for number, plan in enumerate(policy.plan_front(snapshot), 1):
        due = [gpus for gpus, start in zip(plan.gpus, plan.start_times, strict=True) if start == snapshot.time]
        details = {"jobs": len(plan.jobs), "start_now": len(due), "gpus": ", ".join(sorted(set(plan.gpus)))}
        found.append((f"plan {number}", plan.mean_jct, plan.energy_kwh, details))
    return _points(found)


def _snapshot_at(trace: Trace, cluster: ClusterSpec, policy: Policy, time: float) -> Snapshot:
    simulated = SimulatedCluster(trace, cluster)
    while simulated.advance():
        snapshot = simulated.snapshot()
        if snapshot.time >= time:
            return snapshot
        for action in policy.decide(snapshot):
            simulated.apply(action)
    raise AssertionError("a submission is a decision point")


def _points(found: Sequence[tuple[str, float, float, dict[str, Any]]]) -> list[FrontPoint]:
    costs = np.array([(jct, energy) for _, jct, energy, _ in found])
    front = set(non_dominated(costs).tolist())
    order = np.lexsort((costs[:, 1], costs[:, 0])).tolist()
    return [FrontPoint(found[row][0], found[row][1], found[row][2], row in front, found[row][3]) for row in order]


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be written, before anything runs.

    Raises:
        ConfigError: no picture format has this suffix.
        MissingExtra: matplotlib is not installed.
    """
    suffix = _format(path)
    if suffix not in _figure().canvas.get_supported_filetypes():
        raise ConfigError(f"{path}: no picture format is called {suffix!r}; use .png, .svg or .pdf")


def plot_front(points: Sequence[FrontPoint], title: str, path: Path) -> None:
    """Write the picture of these points; its format follows from the suffix.

    Raises:
        ConfigError: no picture can be written so.
        MissingExtra: matplotlib is not installed.
    """
    check_picture(path)
    try:
        front_figure(points, title).savefig(path, dpi=130, format=_format(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None


def front_figure(points: Sequence[FrontPoint], title: str) -> "Figure":
    """Draw the points, those of the front in another colour and joined: what no other beats in both lies below it."""
    figure = _figure()
    axes = figure.subplots()
    front = [point for point in points if point.on_front]
    axes.step([point.mean_jct for point in front], [point.added_kwh for point in front], where="post",
              color=ON_FRONT, linewidth=1.4, alpha=0.6)  # fmt: skip
    for point in points:
        axes.plot(point.mean_jct, point.added_kwh, "o", color=_colour([point]), markersize=6 if len(front) < 24 else 4)
    for group in _close_together(points) if len(front) < 24 else []:
        axes.annotate(" · ".join(point.label for point in group), (group[0].mean_jct, group[0].added_kwh), (6, 4),
                      textcoords="offset points", fontsize=8.5, color=_colour(group))  # fmt: skip
    axes.margins(0.12)
    axes.set(xlabel="mean job completion time, s", ylabel="energy above idle draw, kWh")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.set_title(title, loc="left", fontsize=10.5)
    return figure


def _colour(points: Sequence[FrontPoint]) -> str:
    return ON_FRONT if any(point.on_front for point in points) else DOMINATED


def _close_together(points: Sequence[FrontPoint]) -> list[list[FrontPoint]]:
    """Return the points in groups whose labels would cover each other."""
    places = np.array([(point.mean_jct, point.added_kwh) for point in points])
    places = (places - places.min(axis=0)) / np.maximum(np.ptp(places, axis=0), 1e-300)
    groups: list[list[int]] = []
    for row in range(len(points)):
        near = (group for group in groups if (np.abs(places[group[0]] - places[row]) < _LABEL).all())
        found = next(near, None)
        if found is None:
            groups.append([row])
        else:
            found.append(row)
    return [[points[row] for row in group] for group in groups]


def _format(path: Path) -> str:
    return path.suffix.removeprefix(".").lower() or "png"


def _figure() -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_extra("matplotlib", "report") from None
    return Figure(figsize=(7.2, 4.4), layout="constrained")
