"""The Standard Workload Format of the Parallel Workloads Archive, plain or gzip.

A row has 18 numbers (more are ignored), -1 is unknown, lines that begin with ; are header or comment:
https://www.cs.huji.ac.il/labs/parallel/workload/swf.html. A processor of the file counts as one GPU.
"""

import gzip
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import TraceError, counted
from lepton_rl.workloads.files import read_bytes, trace_name
from lepton_rl.workloads.requested import CLAIRVOYANT, partly_given
from lepton_rl.workloads.trace import EXAMPLES, Dropped, MachineHeader, Requested, Trace

_MOST_DIGITS = 18
NEGATIVE_RUN_TIME = 10.0  # seconds, as in RLScheduler (Zhang et al., SC 2020)

_KEPT = {
    "job": 0,
    "submit": 1,
    "run": 3,
    "allocated": 4,
    "asked": 7,
    "limit": 8,
    "user": 11,
    "group": 12,
    "queue": 14,
}
_WHOLE = ("job", "user", "group", "queue")  # processors are checked with the Trace
_FIELD_NAMES = (
    "job number", "submit time", "wait time", "run time", "allocated processors", "average CPU time",
    "used memory", "requested processors", "requested time", "requested memory", "status", "user", "group",
    "executable", "queue", "partition", "preceding job", "think time",
)  # fmt: skip


def read_swf(path: str | Path) -> Trace:
    """Read an SWF file, jobs ordered by job number and then, stably, by submit time.

    Rows with run time 0, without processors or without submit time are dropped and counted. A negative run
    time becomes 10 s. A job's processors are the larger of allocated and requested. The requested time is
    field 9, or the run time where it is unknown. The group is the project.
    """
    path = Path(path)
    data = read_bytes(path)
    table, lines = _parse(path, data)
    for name in _WHOLE:
        _check_whole(path, lines, name, table[name])
    processors = np.maximum(table["allocated"], table["asked"])
    notes = []
    negative = table["run"] < 0.0
    run = np.where(negative, NEGATIVE_RUN_TIME, table["run"])
    if negative.any():
        count = int(np.count_nonzero(negative))
        notes.append(f"negative run time in {counted(count, 'row')}: {NEGATIVE_RUN_TIME:g} s is used")
    kept, dropped = _sieve(
        table["job"],
        {
            "run time 0": run == 0.0,
            "no processors": processors <= 0.0,
            "no submit time": table["submit"] < 0.0,
        },
    )
    if not len(kept):
        reasons = ", ".join(f"{entry.count} {entry.reason}" for entry in dropped)
        raise TraceError(f"{path}: no job is left: all {counted(len(run), 'row')} dropped ({reasons})")
    order = kept[np.lexsort((table["job"][kept], table["submit"][kept]))]
    run, limit, lines = run[order], table["limit"][order], lines[order]
    unknown = np.count_nonzero(limit <= 0.0)
    requested: Requested = "exact" if unknown == len(order) else "given"
    if requested == "exact":
        notes.append(CLAIRVOYANT)
    elif unknown:
        notes.append(partly_given(int(unknown)))
    return Trace.from_columns(
        {
            "job_id": table["job"][order].astype(np.int64),
            "submit_time": table["submit"][order],
            "run_time": run,
            "requested_time": np.where(limit > 0.0, limit, run),
            "gpus": processors[order],
            "queue": table["queue"][order].astype(np.int64),
            "user": table["user"][order].astype(np.int64),
            "project": table["group"][order].astype(np.int64),
        },
        name=trace_name(path),
        machine=_machine(data),
        requested=requested,
        dropped=dropped,
        notes=notes,
        locate=lambda row: f"{path}:{lines[row]}",
    )


def write_swf(trace: Trace, path: str | Path) -> None:
    """Write whole-GPU jobs as SWF, gzip if the name ends in .gz; times are rounded to milliseconds.

    An exact requested time is written as -1, as `read_swf` understands it; what SWF has no field for is lost.
    """
    path = Path(path)
    if (trace.gpus < 1.0).any():
        raise TraceError(f"{path}: SWF counts whole processors, and {trace.name} has jobs with a share of a GPU")
    known = trace.requested not in ("exact", "absent")
    limits = trace.requested_time if known else np.full(len(trace), -1.0)
    columns = (
        trace.job_id.tolist(),
        np.round(trace.submit_time + trace.origin, 3).tolist(),
        np.maximum(np.round(trace.run_time, 3), 0.001).tolist(),
        trace.gpus.astype(np.int64).tolist(),
        np.round(limits, 3).tolist(),
        trace.user.tolist(),
        trace.project.tolist(),
        trace.queue.tolist(),
    )
    machine = trace.machine or MachineHeader()
    sizes = (("MaxNodes", machine.max_nodes), ("MaxProcs", machine.max_procs))
    head = ["; Version: 2.2", f"; MaxJobs: {len(trace)}", f"; MaxRecords: {len(trace)}"]
    head += [f"; {key}: {value}" for key, value in sizes if value is not None]
    rows = [
        f"{job} {submit:.15g} -1 {run:.15g} {n} -1 -1 {n} {limit:.15g} -1 1 {user} {group} -1 {queue} -1 -1 -1"
        for job, submit, run, n, limit, user, group, queue in zip(*columns, strict=True)
    ]
    data = "\n".join((*head, *rows, "")).encode()
    try:
        path.write_bytes(gzip.compress(data, compresslevel=6, mtime=0) if path.suffix == ".gz" else data)
    except OSError as error:
        raise TraceError(f"{path}: cannot be written: {error.strerror or error}") from None


def _parse(path: Path, data: bytes) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """Return the fields in _KEPT by name, and the file's line of each row."""
    from lepton_rl.workloads import swf_kernel

    keep = np.full(swf_kernel.SWF_FIELDS, -1, dtype=np.int64)
    keep[list(_KEPT.values())] = np.arange(len(_KEPT))
    most = data.count(b"\n") + 1
    out = np.empty((len(_KEPT), most))
    lines = np.empty(most, dtype=np.int64)
    rows, status, line, field, position = swf_kernel.parse_rows(np.frombuffer(data, dtype=np.uint8), keep, out, lines)
    if status == swf_kernel.NOT_A_NUMBER:
        token = re.split(rb"\s", data[position : position + 40], maxsplit=1)[0].decode("utf-8", "replace")
        raise _field_error(f"{path}:{line}", field, f"{token!r} is not a number")
    if status == swf_kernel.TOO_FEW_FIELDS:
        raise TraceError(f"{path}:{line}: {counted(field, 'field')}; a row of SWF has {swf_kernel.SWF_FIELDS}")
    if rows == 0:
        raise TraceError(f"{path}: there are no job rows")
    return dict(zip(_KEPT, out[:, :rows], strict=True)), lines[:rows]


def _field_error(place: str, field: int, problem: str) -> TraceError:
    return TraceError(f"{place}: field {field + 1} ({_FIELD_NAMES[field]}): {problem}")


def _check_whole(path: Path, lines: NDArray[np.int64], name: str, values: NDArray[np.float64]) -> None:
    bad = (values != np.rint(values)) | (np.abs(values) > 2.0**53)
    if bad.any():
        row = int(bad.argmax())
        raise _field_error(f"{path}:{lines[row]}", _KEPT[name], f"{values[row]:g} is not a whole number")


def _sieve(
    job: NDArray[np.float64], reasons: dict[str, NDArray[np.bool_]]
) -> tuple[NDArray[np.int64], tuple[Dropped, ...]]:
    """Return the rows that stay, and what goes; a row is counted under its first reason."""
    kept = np.ones(len(job), dtype=np.bool_)
    dropped = []
    for reason, rows in reasons.items():
        gone = np.flatnonzero(rows & kept)
        if len(gone):
            examples = tuple(f"job {job[row]:.0f}" for row in gone[:EXAMPLES])
            dropped.append(Dropped(reason, len(gone), examples))
            kept[gone] = False
    return np.flatnonzero(kept), tuple(dropped)


def _machine(data: bytes) -> MachineHeader | None:
    """Return the header fields, "; Key: value", above the first row; None if there are none."""
    fields: dict[str, str] = {}
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        line = data[start:end].strip()
        start = end + 1
        if not line:
            continue
        if not line.startswith(b";"):
            break
        match = re.match(r";\s*([A-Za-z]+)\s*:\s*(.+)", line.decode("utf-8", "replace"))
        if match:
            fields.setdefault(match[1], match[2].strip())
    if not fields:
        return None
    nodes, procs = (_leading_number(fields.get(key)) for key in ("MaxNodes", "MaxProcs"))
    start_time = _leading_number(fields.get("UnixStartTime"))
    return MachineHeader(nodes, procs, None if start_time is None else float(start_time), fields)


def _leading_number(text: str | None) -> int | None:
    match = re.match(r"\d+", text or "")
    number = int(match[0][:_MOST_DIGITS]) if match else 0  # so many say "too large" already
    return number if number > 0 else None
