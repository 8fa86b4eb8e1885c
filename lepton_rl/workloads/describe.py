"""What a trace holds, in numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import ConfigError, counted
from lepton_rl.workloads.dependencies import chains
from lepton_rl.workloads.requested import NOTE
from lepton_rl.workloads.trace import Dropped, Requested, Trace

QUANTILES = (1, 5, 25, 50, 75, 95, 99)

_SHOWN_SIZES = 6
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


@dataclass(frozen=True)
class TraceDescription:
    """Figures of one trace; times in seconds.

    Attributes:
        name: of the trace.
        jobs: how many.
        span: from first to last submission.
        run_time: mean, p1 to p99 and max.
        gap: mean, cv (coefficient of variation; 1 is Poisson), p1 to p99 and max of the gaps between
            arrivals; empty for a single job.
        gpus: mean, p1 to p99 and max.
        gpus_shares: share of the jobs for each size, most common first.
        gpu_seconds: sum of run time times GPUs.
        mean_demand: GPUs busy on average if every job ran at once; None where the span is 0.
        offered_load: mean demand over cluster size, by size; None where the span is 0.
        requested: where the requested times come from.
        requested_ratio: mean, p1 to p99 and max of requested over run time; empty if absent.
        gpu_utilization: mean, p1 to p99 and max of the measured ones; empty where none is.
        gpu_utilization_known: share of the jobs that have one.
        queues: distinct names.
        users: distinct names.
        projects: distinct names.
        dependencies: pairs of jobs of which one starts after the other has finished.
        waiting_jobs: jobs that come after others.
        longest_chain: jobs of the longest chain in which each comes after the one before; 0 without dependencies.
        critical_path: largest sum of run times along a chain, which may be another one; 0 without dependencies.
        max_nodes: from the file's header.
        max_procs: from the file's header.
        dropped: what was left out, and why.
        notes: what was read otherwise than written.
    """

    name: str
    jobs: int
    span: float
    run_time: Mapping[str, float]
    gap: Mapping[str, float]
    gpus: Mapping[str, float]
    gpus_shares: Mapping[float, float]
    gpu_seconds: float
    mean_demand: float | None
    offered_load: Mapping[int, float | None]
    requested: Requested
    requested_ratio: Mapping[str, float]
    gpu_utilization: Mapping[str, float]
    gpu_utilization_known: float
    queues: int
    users: int
    projects: int
    dependencies: int
    waiting_jobs: int
    longest_chain: int
    critical_path: float
    max_nodes: int | None
    max_procs: int | None
    dropped: tuple[Dropped, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; sizes become text keys."""
        plain = asdict(self)
        plain["gpus_shares"] = {f"{size:g}": share for size, share in self.gpus_shares.items()}
        plain["offered_load"] = {str(size): load for size, load in self.offered_load.items()}
        plain["dropped"] = [asdict(entry) | {"examples": list(entry.examples)} for entry in self.dropped]
        plain["notes"] = list(self.notes)
        return plain

    def rows(self) -> list[tuple[str, str]]:
        """Return (what, figures) pairs of text for a table."""
        largest = list(self.gpus_shares.items())[:_SHOWN_SIZES]
        shares = "  ".join(f"{size:g}: {_share_text(share)}" for size, share in largest)
        more = len(self.gpus_shares) - len(largest)
        origin = (note.removeprefix(NOTE) for note in self.notes if note.startswith(NOTE))
        rows = [
            ("jobs", f"{self.jobs:,}"),
            ("span", duration_text(self.span)),
            ("GPUs of a job", shares + (f"  and {counted(more, 'more size')}" if more > 0 else "")),
            ("largest job", counted(self.gpus["max"], "GPU")),
            ("mean demand", "-" if self.mean_demand is None else f"{self.mean_demand:.1f} GPUs"),
            ("requested times", ": ".join((self.requested, *origin))),
        ]
        for size, load in self.offered_load.items():
            rows.append((f"offered load, {counted(size, 'GPU')}", "-" if load is None else f"{load:.2f}"))
        if self.gpu_utilization:
            known = f"known of {_share_text(self.gpu_utilization_known)} of the jobs"
            rows.append(("GPU utilisation", f"{self.gpu_utilization['mean']:.1%} in the mean, {known}"))
        header = (("MaxNodes", self.max_nodes), ("MaxProcs", self.max_procs))
        rows += [(f"header {key}", str(value)) for key, value in header if value is not None]
        counts = (("queues", self.queues), ("users", self.users), ("projects", self.projects))
        rows += [(what, str(count)) for what, count in counts if count]
        if self.dependencies:
            rows += [
                ("dependencies", f"{self.dependencies:,}"),
                ("jobs that come after others", f"{self.waiting_jobs:,}"),
                ("longest chain", counted(self.longest_chain, "job")),
                ("critical path", f"{self.critical_path:,.0f} s"),
            ]
        for entry in self.dropped:
            named = ", ".join(entry.examples) + (", ..." if entry.count > len(entry.examples) else "")
            rows.append(("dropped", f"{entry.count:,} {entry.reason} ({named})"))
        rows += [("note", note) for note in self.notes if not note.startswith(NOTE)]
        return rows

    def quantile_rows(self) -> list[tuple[str, ...]]:
        """Return a table of text, heads first: a row for the mean, each quantile and the largest."""
        columns = [("run time", self.run_time, duration_text), ("gap between arrivals", self.gap, duration_text)]
        if self.requested not in ("exact", "absent"):
            columns.append(("requested / run time", self.requested_ratio, "{:.3g}".format))
        keys = ("mean", *(f"p{quantile}" for quantile in QUANTILES), "max")
        rows = [(key, *(text(part[key]) if part else "-" for _, part, text in columns)) for key in keys]
        cv = ("cv", "", f"{self.gap['cv']:.1f}" if self.gap else "-", *[""] * (len(columns) - 2))
        return [("", *(name for name, _, _ in columns)), *rows, cv]


def describe(trace: Trace, gpus: Sequence[int] = ()) -> TraceDescription:
    """Return the figures of a trace, with its offered load on clusters of these many GPUs."""
    if any(size < 1 for size in gpus):
        raise ConfigError(f"offered load of {min(gpus)} GPUs: a cluster has at least 1")
    span = float(trace.submit_time[-1] - trace.submit_time[0])
    gpu_seconds = float(trace.run_time @ trace.gpus)
    gaps = np.diff(trace.submit_time)
    gap = _figures(gaps) if len(gaps) else {}
    if gap:
        gap["cv"] = float(gaps.std()) / gap["mean"] if gap["mean"] > 0.0 else 0.0
    sizes, counts = np.unique(trace.gpus, return_counts=True)
    common = np.lexsort((sizes, -counts))
    absent = trace.requested == "absent"
    measured = trace.gpu_utilization[~np.isnan(trace.gpu_utilization)]
    machine = trace.machine
    longest_chain, critical_path = chains(trace.after, trace.run_time)
    return TraceDescription(
        name=trace.name,
        jobs=len(trace),
        span=span,
        run_time=_figures(trace.run_time),
        gap=gap,
        gpus=_figures(trace.gpus),
        gpus_shares={float(sizes[i]): float(counts[i]) / len(trace) for i in common},
        gpu_seconds=gpu_seconds,
        mean_demand=gpu_seconds / span if span > 0.0 else None,
        offered_load={int(size): trace.offered_load(size) if span > 0.0 else None for size in gpus},
        requested=trace.requested,
        requested_ratio={} if absent else _figures(trace.requested_time / trace.run_time),
        gpu_utilization=_figures(measured) if len(measured) else {},
        gpu_utilization_known=len(measured) / len(trace),
        queues=len(np.unique(trace.queue[trace.queue >= 0])),
        users=len(np.unique(trace.user[trace.user >= 0])),
        projects=len(np.unique(trace.project[trace.project >= 0])),
        dependencies=len(trace.after),
        waiting_jobs=len(np.unique(trace.after[:, 1])),
        longest_chain=longest_chain,
        critical_path=critical_path,
        max_nodes=machine.max_nodes if machine else None,
        max_procs=machine.max_procs if machine else None,
        dropped=trace.dropped,
        notes=trace.notes,
    )


def duration_text(seconds: float) -> str:
    """Return a duration in the unit that reads best: "48 s", "2.9 min", "3.1 d"."""
    unit, name = next((u for u in _UNITS if seconds >= u[0]), _UNITS[-1])
    amount = seconds / unit
    return f"{amount:.0f} {name}" if amount == math.floor(amount) else f"{amount:.1f} {name}"


def _share_text(share: float) -> str:
    return "<0.1%" if 0.0 < share < 0.0005 else f"{share:.1%}"


def _figures(values: NDArray[np.float64]) -> dict[str, float]:
    quantiles = np.percentile(values, QUANTILES)
    return {
        "mean": float(values.mean()),
        **{f"p{q}": float(value) for q, value in zip(QUANTILES, quantiles, strict=True)},
        "max": float(values.max()),
    }
