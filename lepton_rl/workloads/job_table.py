"""The packed job table of a trace, and which jobs a cluster can never run."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Bools, Floats, Ints32, Ints64
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.core.hardware.catalogue import aliases, gpu_type, gpu_types
from lepton_rl.core.hardware.gpu_type import card_name
from lepton_rl.core.hardware.speed import JOB_CLASSES
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import njit
from lepton_rl.core.machine import empty_cluster, hardware_tables
from lepton_rl.core.placement import fits, nodes_needed
from lepton_rl.errors import ConfigError, TraceError, counted, nearest
from lepton_rl.workloads.trace import EXAMPLES, Dropped, Trace

_CLASSES = tuple(JOB_CLASSES)


def job_table(trace: Trace, cluster: ClusterSpec) -> Floats:
    """Return what a scheduler can know of each job, rows in trace order, ids the row numbers."""
    has_deadlines = cluster.groups or not np.isnan(trace.deadline).all()
    jobs = np.zeros((len(trace), L.DEADLINE + 1 if has_deadlines else L.JOB_COLUMNS))
    jobs[:, L.ID] = np.arange(len(trace))
    jobs[:, L.SUBMIT] = trace.submit_time
    jobs[:, L.REQUESTED] = trace.requested_time
    jobs[:, L.GPUS] = np.rint(trace.gpus * L.MILLI)
    jobs[:, L.MEMORY] = np.ceil(np.nan_to_num(trace.gpu_memory_gib, nan=0.0) * L.MIB_PER_GIB)
    jobs[:, L.COMPUTE] = trace.compute_intensity
    jobs[:, L.TIME_SENSITIVITY] = trace.time_sensitivity
    jobs[:, L.QUEUE] = trace.queue
    jobs[:, L.USER] = trace.user
    jobs[:, L.PROJECT] = trace.project
    jobs[:, L.PREDICTED] = trace.requested_time
    jobs[:, L.FIRST_GPU] = -1
    if has_deadlines:
        jobs[:, L.DEADLINE] = trace.submit_time + np.nan_to_num(trace.deadline, nan=np.inf)
    return _detailed(trace, cluster, jobs) if cluster.groups else jobs


def _detailed(trace: Trace, cluster: ClusterSpec, plain: Floats) -> Floats:
    """Return the job table `plain` with the columns of a detailed cluster behind it.

    Raises:
        TraceError: a job names a type of GPU that does not exist.
    """
    jobs = np.zeros((len(trace), L.ASKS + len(cluster.resources)))
    jobs[:, : plain.shape[1]] = plain
    names = [*trace.labels["job_class"], "general"]  # code -1 is the last
    jobs[:, L.CLASS] = np.array([_CLASSES.index(name) for name in names])[trace.job_class]
    jobs[:, L.TYPES] = _type_bits(trace, cluster, plain[:, L.MEMORY])
    jobs[:, L.RATE] = 1.0
    jobs[:, [L.NEXT_SHARE, L.ON_GPU]] = -1.0
    for column, name in enumerate(cluster.resources):
        if name in trace.asks:
            jobs[:, L.ASKS + column] = np.ceil(np.round(trace.asks[name] * L.MILLI, 3))  # 2.007 x 1000 is above 2007
    kinds, member = _kinds(jobs)
    nodes, hw = empty_cluster(cluster)[1], hardware_tables(cluster)
    assert hw is not None
    fewest = np.zeros(len(kinds), np.int64)
    _fewest_nodes(jobs, kinds, nodes, hw, fewest)
    jobs[:, L.FEWEST] = fewest[member]
    jobs[:, L.PLAN_RATE] = _slowest_rate(jobs[kinds], hw.speed)[member]
    return jobs


def fit_to_cluster(trace: Trace, cluster: ClusterSpec, strict: bool = False) -> Trace:
    """Leave out the jobs that the empty cluster could never run, and say so in `dropped`.

    With `strict`, such a job is an error; so is a trace of which nothing is left.
    """
    if not cluster.groups:
        return _with_notes(trace.fit_to(cluster.gpus, strict, cluster.gpu_memory_gib), cluster)
    fitting = _with_notes(trace.fit_to(cluster.gpus, strict), cluster)
    runs = runnable(fitting, cluster)
    stuck = np.flatnonzero(~runs)
    if len(stuck) == 0:
        return fitting
    examples = tuple(wish(fitting, int(row)) for row in stuck[:EXAMPLES])
    if strict or len(stuck) == len(fitting):
        unknown = "".join(f"; {text}" for text in _unknown_types(fitting.where(~runs), cluster)[:1])
        raise TraceError(
            f"{trace.name}: no node group can ever run {len(stuck)} of {counted(len(fitting), 'job')} ({examples[0]})"
            f"{unknown}"
        )
    entry = Dropped("no node group can ever run it", len(stuck), examples)
    return replace(fitting.where(runs), dropped=(*fitting.dropped, entry))


def runnable(trace: Trace, cluster: ClusterSpec) -> NDArray[np.bool_]:
    """Return which jobs the empty cluster could run, shape (jobs,)."""
    jobs = job_table(trace, cluster)
    kinds, member = _kinds(jobs)
    gpus, nodes, _, totals = empty_cluster(cluster)
    runs = np.zeros(len(kinds), np.bool_)
    _runs_alone(jobs, kinds, gpus, nodes, totals, hardware_tables(cluster), runs)
    return runs[member]


def wish(trace: Trace, row: int) -> str:
    """Return what a job asks for, as the end of a sentence."""
    kind = trace.gpu_type[row]
    parts = [f"{trace.gpus[row]:g} GPU{'s' if trace.gpus[row] > 1 else ''}"]
    if kind >= 0:
        parts[0] += f" of type {trace.labels['gpu_type'][kind]}"
    if trace.gpu_memory_gib[row] > 0:
        parts.append(f"{trace.gpu_memory_gib[row]:g} GiB of GPU memory")
    parts += [f"{array[row]:g} {name} a GPU" for name, array in trace.asks.items() if array[row] > 0]
    return f"job {trace.job_id[row]} asks for {', '.join(parts)}"


def _with_notes(trace: Trace, cluster: ClusterSpec) -> Trace:
    """Say which columns the cluster knows nothing of, and which types of GPU nobody does."""
    asked = [name for name, array in trace.asks.items() if array.any() and name not in cluster.resources]
    usual = (*cluster.resources, "cpu_cores", "ram_gib")
    hints = {name: "" if name in usual else nearest(name, usual) for name in asked}
    notes = [f"{name}_per_gpu is not counted: no node group offers {name}{hint}" for name, hint in hints.items()]
    if not cluster.groups and (trace.gpu_type >= 0).any():
        notes.append("gpu_type is not looked at: the cluster's GPUs are of one type without a name")
    elif cluster.groups:
        notes += _unknown_types(trace, cluster)
    new = tuple(note for note in notes if note not in trace.notes)
    return replace(trace, notes=(*trace.notes, *new)) if new else trace


def _unknown_types(trace: Trace, cluster: ClusterSpec) -> list[str]:
    """Return a sentence for each type of GPU that neither the cluster nor the catalogue knows, with a job of it."""
    own = [card_name(kind.name) for kind in cluster.types]
    sentences: dict[str, str] = {}
    for code, text in enumerate(trace.labels["gpu_type"]):
        rows = np.flatnonzero(trace.gpu_type == code)
        for word in (part.strip() for part in text.split("|")):
            if len(rows) > 0 and word not in sentences and word not in own and not _is_in_catalogue(word):
                hint = _nearest_type(word, own)
                sentences[word] = f"job {trace.job_id[rows[0]]}: no GPU type is called {word!r}{hint}"
    return [sentences[word] for word in sorted(sentences)]


def _nearest_type(word: str, own: Sequence[str]) -> str:
    """Return a hint at a type of the cluster, by any of its names, or else at one of the catalogue."""
    here = [name for kind in own for name in (kind, *(aliases(kind) if _is_in_catalogue(kind) else ()))]
    return nearest(word, here) or nearest(word, [kind.name for kind in gpu_types()])


def _is_in_catalogue(name: str) -> bool:
    try:
        gpu_type(name)
    except ConfigError:
        return False
    return True


def _type_bits(trace: Trace, cluster: ClusterSpec, memory_mib: Floats) -> Floats:
    """Bit t of a job is set where GPUs of type t will do, with their memory."""
    types = cluster.types
    wanted = [_wanted_types(name, trace.name) for name in trace.labels["gpu_type"]] + [None]  # code -1 is the last
    bits = np.zeros(len(trace))
    for bit, kind in enumerate(types):
        own_name = card_name(kind.name)
        named = np.array([names is None or not cluster.names_types or own_name in names for names in wanted])
        enough = memory_mib <= ClusterSpec(gpu_memory_gib=kind.memory_gib).gpu_memory_mib
        bits += np.where(named[trace.gpu_type] & enough, 2.0**bit, 0.0)
    return bits


def _wanted_types(text: str, trace: str) -> set[str]:
    """Names of the types that a job asks for, its own spelling and the catalogue's."""
    names: set[str] = set()
    for word in (part.strip() for part in text.split("|")):
        names.add(word)
        try:
            names.add(gpu_type(word).name)
        except ConfigError:
            if not word:
                raise TraceError(f"{trace}: gpu_type {text!r} names an empty type; join types by one |") from None
    return names


def _kinds(jobs: Floats) -> tuple[Ints64, Ints64]:
    """Return (a row of each kind of demand, the kind of each job)."""
    asked = [L.GPUS, L.MEMORY, L.TYPES, L.CLASS, *range(L.ASKS, jobs.shape[1])]
    _, rows, member = np.unique(jobs[:, asked], axis=0, return_index=True, return_inverse=True)
    return rows.astype(np.int64), member.reshape(-1).astype(np.int64)


def _slowest_rate(jobs: Floats, speed: Floats) -> Floats:
    bits = jobs[:, L.TYPES].astype(np.int64)
    may = (bits[:, None] >> np.arange(len(speed))) & 1 == 1
    rates = np.where(may, speed[:, jobs[:, L.CLASS].astype(np.int64)].T, np.inf).min(axis=1)
    return np.where(np.isfinite(rates), rates, 1.0)


@njit
def _fewest_nodes(jobs: Floats, rows: Ints64, nodes: Ints32, hw: Hardware, fewest: Ints64) -> None:
    for index in range(rows.shape[0]):
        count = max(int(jobs[rows[index], L.GPUS]) // L.MILLI, 1)
        fewest[index] = nodes_needed(jobs, rows[index], nodes, hw, count)


@njit
def _runs_alone(
    jobs: Floats, rows: Ints64, gpus: Ints32, nodes: Ints32, totals: Ints64, hw: Hardware, runs: Bools
) -> None:
    for index in range(rows.shape[0]):
        runs[index] = fits(0, jobs, rows[index], gpus, nodes, totals, hw)
