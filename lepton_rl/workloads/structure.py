"""Workloads of jobs that belong together: stages one after the other, arrays of equal jobs, jobs cut into parts.

Each function makes one trace from another. Rows are numbers or a mask, shape (jobs,); `Trace.after` of the result says
who waits for whom.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton_rl.errors import ConfigError, TraceError, counted, nearest
from lepton_rl.workloads.columns import COLUMNS, check_numbers
from lepton_rl.workloads.dependencies import Edges, check_count, ordered
from lepton_rl.workloads.trace import Trace

Rows = NDArray[np.int64]

PARTS_OF = "parts of job "
ARRAY_OF = "array of job "
_PARTS = re.compile(f"{PARTS_OF}(-?\\d+)")


def pipeline(trace: Trace, stages: Sequence[int | str | Sequence[int]]) -> Trace:
    """Let every job of a stage come after all jobs of the stage before it; other dependencies stay.

    Args:
        trace: the jobs.
        stages: two or more, first to last, each a row, several rows, or the name of a stage (column `stage`).

    Raises:
        TraceError: a row or stage is not in the trace, or a job would wait for itself.
    """
    found = [_stage_rows(trace, stage) for stage in stages]
    check_count(sum(len(first) * len(then) for first, then in pairwise(found)), trace.name)
    pairs = [np.stack(np.meshgrid(first, then), -1).reshape(-1, 2) for first, then in pairwise(found)]
    return trace.with_after(np.concatenate((trace.after, *pairs)))


def job_array(trace: Trace, row: int, n: int, join_s: float | None = None) -> Trace:
    """Return the trace with one job `n` times: all wait for what it waited for, and its successors for all of them.

    They have fresh job ids, counted on from the largest, and without a stage of their own the stage
    "array of job ID". `join_s` adds a joining job of that many seconds on one GPU (or the job's share of one) that
    comes after all of them; the successors wait for it alone.

    Raises:
        TraceError: there is no such row, or `join_s` is not above 0.
        ConfigError: `n` is below 1.
    """
    (row,) = _rows(trace, [row]).tolist()
    repeated = _repeated(trace, np.array([row]), _at_least_one(n, "n") + (join_s is not None))
    stage = repeated.stage.copy()
    own = trace.stage[row] >= 0
    labels, code = (trace.labels, trace.stage[row]) if own else _with_stages(trace, [f"{ARRAY_OF}{trace.job_id[row]}"])
    members = slice(row, row + n)
    stage[members] = code
    if join_s is None:
        return replace(repeated, stage=stage, labels=labels)
    join = row + n
    stage[join] = -1
    return _joined(replace(repeated, stage=stage, labels=labels), np.arange(row, join), join, join_s)


def split_jobs(trace: Trace, rows: ArrayLike, parts: int, overhead_s: float = 0.0) -> Trace:
    """Return the trace with each job of `rows` as `parts` jobs that are independent of one another.

    A part has the same submit time and number of GPUs, and runs `t / parts + overhead_s` seconds, t the run time of
    the job; its requested time follows from the job's in the same way. Parts wait for what the job waited for, and its
    successors for all of them. They have fresh job ids, counted on from the largest, and the stage "parts of job ID"
    in place of the job's own, by which `parent_jct` knows them; parts of a part keep it.

    Raises:
        TraceError: a row is not in the trace, or several jobs have the id of one that is split.
        ConfigError: `parts` is below 1, or `overhead_s` below 0.
    """
    chosen = _rows(trace, rows)
    if not 0.0 <= overhead_s < np.inf:
        raise ConfigError(f"overhead_s is {overhead_s:g}; a part takes 0 or more seconds more")
    _refuse_shared_ids(trace, chosen)
    cut = _repeated(trace, chosen, _at_least_one(parts, "parts"))
    is_part = np.repeat(_mask(chosen, len(trace)), _counts(chosen, parts, len(trace)))
    own = [trace.labels["stage"][code] if code >= 0 else "" for code in trace.stage[chosen].tolist()]
    names = [
        name if _PARTS.fullmatch(name) else f"{PARTS_OF}{job}"
        for name, job in zip(own, trace.job_id[chosen].tolist(), strict=True)
    ]
    labels, codes = _with_stages(trace, names)
    stage, run, requested = cut.stage.copy(), cut.run_time.copy(), cut.requested_time.copy()
    stage[is_part] = np.repeat(codes, parts)
    for seconds in (run, requested):
        seconds[is_part] = seconds[is_part] / parts + overhead_s
    check_numbers("run_time", run, lambda row: f"{trace.name}: job {cut.job_id[row]}")
    return replace(cut, run_time=run, requested_time=requested, stage=stage, labels=labels)


def parent_jct(trace: Trace, finish: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the jobs that `split_jobs` began with, and their job completion times: until the last part has finished.

    Args:
        trace: with parts, or without.
        finish: seconds, shape (jobs,), as in `Outcome.finish`.

    Returns:
        job_id: shape (parents,), in the order of their first row; a job that is no part is its own parent.
        jct: largest finish less smallest submit time, seconds, shape (parents,).
    """
    ends = np.asarray(finish, np.float64)
    if ends.shape != (len(trace),):
        raise TraceError(f"{trace.name}: finish has shape {ends.shape}; the trace has {counted(len(trace), 'job')}")
    names = trace.labels["stage"]
    matches = [_PARTS.fullmatch(name) for name in (*names, "")]  # code -1 is the last
    is_part = np.array([match is not None for match in matches])[trace.stage]
    parents = np.array([int(match[1]) if match else 0 for match in matches])
    group = np.where(is_part, trace.stage, len(names) + np.arange(len(trace)))
    _, first, member = np.unique(group, return_index=True, return_inverse=True)
    last, begin = np.full(len(first), -np.inf), np.full(len(first), np.inf)
    np.maximum.at(last, member, ends)
    np.minimum.at(begin, member, trace.submit_time)
    order = np.argsort(first)
    ids = np.where(is_part, parents[trace.stage], trace.job_id)[first]
    return ids[order], (last - begin)[order]


def _rows(trace: Trace, rows: ArrayLike) -> Rows:
    """Return row numbers, each once, in order."""
    array = np.asarray(rows)
    if array.dtype == np.bool_ and array.shape == (len(trace),):
        return np.flatnonzero(array)
    if array.size == 0:
        return np.empty(0, np.int64)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TraceError(f"{trace.name}: rows are whole numbers, or a mask with one entry for each job")
    outside = (array < 0) | (array >= len(trace))
    if outside.any():
        raise TraceError(f"{trace.name}: there is no row {array[outside][0]}; the rows are 0 to {len(trace) - 1}")
    return np.unique(array.astype(np.int64))


def _stage_rows(trace: Trace, stage: int | str | Sequence[int]) -> Rows:
    names = trace.labels["stage"]
    if isinstance(stage, str):
        rows = np.flatnonzero(trace.stage == names.index(stage)) if stage in names else np.empty(0, np.int64)
    else:
        rows = _rows(trace, [stage] if isinstance(stage, int | np.integer) else stage)
    if len(rows) == 0:
        raise TraceError(f"{trace.name}: {_no_job_of(stage, names)}")
    return rows


def _no_job_of(stage: int | str | Sequence[int], names: Sequence[str]) -> str:
    if not isinstance(stage, str):
        return "a stage has no job"
    return f"no job is of stage {stage!r}{nearest(stage, [name for name in names if name != stage])}"


def _at_least_one(number: int, name: str) -> int:
    if number < 1 or number != int(number):
        raise ConfigError(f"{name} is {number:g}; it must be a whole number, 1 or more")
    return int(number)


def _mask(rows: Rows, jobs: int) -> NDArray[np.bool_]:
    mask = np.zeros(jobs, np.bool_)
    mask[rows] = True
    return mask


def _counts(rows: Rows, times: int, jobs: int) -> NDArray[np.int64]:
    return np.where(_mask(rows, jobs), times, 1)


def _repeated(trace: Trace, rows: Rows, times: int) -> Trace:
    """Return the trace with each of `rows` so many times, side by side, under fresh ids and with all its edges."""
    counts = _counts(rows, times, len(trace))
    source = np.repeat(np.arange(len(trace)), counts)
    columns = {column: getattr(trace, column)[source] for column in COLUMNS}
    fresh = _mask(rows, len(trace))[source]
    columns["job_id"][fresh] = trace.job_id.max() + 1 + np.arange(np.count_nonzero(fresh))
    asks = {name: array[source] for name, array in trace.asks.items()}
    return replace(trace, **columns, asks=asks, after=_crossed(trace.after, counts, trace.name))


def _crossed(edges: Edges, counts: NDArray[np.int64], name: str) -> Edges:
    """Return the edges between all copies of the rows, of which there are `counts`, shape (jobs,)."""
    begin = np.cumsum(counts) - counts
    before, after = edges[:, 0], edges[:, 1]
    sizes = counts[before] * counts[after]
    check_count(int(sizes.sum()), name)
    edge = np.repeat(np.arange(len(edges)), sizes)
    within = np.arange(len(edge)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    width = counts[after[edge]]
    return ordered(np.column_stack((begin[before[edge]] + within // width, begin[after[edge]] + within % width)))


def _joined(trace: Trace, members: Rows, join: int, seconds: float) -> Trace:
    """Make row `join` the job that comes after `members`, and that their successors come after in their place."""
    run, requested, gpus = trace.run_time.copy(), trace.requested_time.copy(), trace.gpus.copy()
    run[join] = seconds
    requested[join] = np.nan if trace.requested == "absent" else seconds
    gpus[join] = min(gpus[join], 1.0)
    used = trace.gpu_utilization.copy()
    used[join] = np.nan
    check_numbers("run_time", run, lambda row: f"{trace.name}: joining job")
    inside = _mask(members, len(trace))
    others = trace.after[~inside[trace.after[:, 0]] & (trace.after[:, 1] != join)]
    into = np.column_stack((members, np.full(len(members), join)))
    joined = replace(trace, run_time=run, requested_time=requested, gpus=gpus, gpu_utilization=used)
    return joined.with_after(np.concatenate((others, into)))


def _with_stages(trace: Trace, names: Sequence[str]) -> tuple[dict[str, tuple[str, ...]], NDArray[np.int32]]:
    """Return the labels with these stages among them, and the code of each."""
    stages = tuple(dict.fromkeys((*trace.labels["stage"], *names)))
    code = {name: number for number, name in enumerate(stages)}
    return {**trace.labels, "stage": stages}, np.array([code[name] for name in names], np.int32)


def _refuse_shared_ids(trace: Trace, rows: Rows) -> None:
    ids, times = np.unique(trace.job_id, return_counts=True)
    shared = np.isin(trace.job_id[rows], ids[times > 1])
    if shared.any():
        job = trace.job_id[rows][shared][0]
        raise TraceError(f"{trace.name}: several jobs have the job_id {job}; their parts would be mixed up")
