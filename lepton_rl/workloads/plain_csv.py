"""A plain CSV of one's own: the format that `lepton-rl traces template` prints."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from lepton_rl.errors import TraceError
from lepton_rl.workloads.after_column import resolve
from lepton_rl.workloads.columns import ASKED, CATEGORIES, COLUMNS, as_codes, check_job_ids, fail
from lepton_rl.workloads.dependencies import (
    AFTER,
    Edges,
    bridged,
    lost_note,
    no_edges,
    predecessor_lists,
    refuse_cycles,
    selected,
)
from lepton_rl.workloads.files import trace_name
from lepton_rl.workloads.tables import CsvTable, read_table
from lepton_rl.workloads.trace import Trace


@dataclass(frozen=True)
class PlainColumn:
    """One column of the plain CSV, declared once for reader, template and documentation."""

    name: str
    help: str
    required: bool = False
    empty: float | None = None  # what an empty field means, where it may be empty


PLAIN_COLUMNS = (
    PlainColumn("job_id", "a whole number, each once; rows are numbered from 1 without it"),
    PlainColumn(
        "submit_time",
        "seconds, from any zero at or before the first job; the rows may come in any order",
        required=True,
    ),
    PlainColumn("run_time", "seconds that the job runs; rows with 0 are dropped and counted", required=True),
    PlainColumn("gpus", "a whole number, or a share of one GPU below 1 in steps of 0.001", required=True),
    PlainColumn("requested_time", "seconds that its user asked for; empty: the run time", empty=np.nan),
    PlainColumn("gpu_memory_gib", "GiB needed on each GPU; empty: no figure", empty=np.nan),
    PlainColumn("queue", "a name; empty: unknown"),
    PlainColumn("user", "a name; empty: unknown"),
    PlainColumn("project", "a name; empty: unknown"),
    PlainColumn("compute_intensity", "compute per datum, 0 or more, in any unit; empty: 1", empty=1.0),
    PlainColumn("time_sensitivity", "how urgent the job is, 0 or more; empty: 1", empty=1.0),
    PlainColumn("job_class", "vision, language, recommendation, speech or general: whose speeds hold; empty: general"),
    PlainColumn("gpu_type", "types of GPU that will do, joined by |, as in A100|H100; empty: any"),
    PlainColumn("deadline", "seconds after submission by which it should have finished; empty: none", empty=np.nan),
    PlainColumn("gpu_utilization", "measured mean use of its GPUs over its run, 0 to 1; empty: unknown", empty=np.nan),
    PlainColumn("stage", "a name that the jobs of one stage or array share; empty: none"),
    PlainColumn(AFTER, "job_ids that must have finished before it starts, as in 1|2; stage:NAME: all jobs of a stage"),
)
ASKED_HELP = "of the node's NAME (cpu_cores, ram_gib, ...) that the job takes beside each of its GPUs; empty: 0"

_NAMES = tuple(column.name for column in PLAIN_COLUMNS)
_REQUIRED = tuple(column.name for column in PLAIN_COLUMNS if column.required)
_EXAMPLE_ROWS = (
    "1,0,3600,1,7200,16,batch,ada,vision,80,3,vision,,,0.35,prepare,",
    "2,60,86400,8,172800,80,batch,grace,language,120,6,language,A100|H100,259200,0.9,,stage:prepare",
    "3,95.5,600,0.25,,4,interactive,ada,,,,,,900,,,",
)


def csv_template() -> str:
    """Return a small workload file whose comments say what each column means."""
    lines = ["# A workload for lepton_rl: one job in each row, columns in any order.", "#"]
    for column in PLAIN_COLUMNS:
        kind = "required" if column.required else "optional"
        lines.append(f"# {column.name:<17} {kind}  {column.help}")
    lines.append(f"# {'NAME' + ASKED:<17} optional  {ASKED_HELP}")
    lines += [
        "#",
        "# Lines that begin with # and blank lines are skipped.",
        ",".join(_NAMES),
        *_EXAMPLE_ROWS,
        "",
    ]
    return "\n".join(lines)


def read_csv(path: str | Path) -> Trace:
    """Read a plain CSV; see `csv_template` for its columns.

    Rows with run time 0 or without a GPU are dropped and counted; other faults are errors with their line. Jobs after a
    row with run time 0 come after those that it came after; a row without a GPU counts as finished, with a note.
    """
    path = Path(path)
    table = read_table(path, _NAMES, _REQUIRED, comments=True, ending=ASKED)
    numbered = CsvTable(
        path,
        {"job_id": [str(row + 1) for row in range(len(table.lines))], **table.columns},
        table.lines,
    )
    _refuse_repeated_ids(numbered)
    no_time = numbered.numbers("run_time") == 0.0
    edges = bridged(_dependencies(numbered), no_time, str(path))
    table, idle = numbered.drop(no_time, "run time 0")
    table, no_gpu = table.drop(table.numbers("gpus") == 0.0, "no GPU")
    columns: dict[str, ArrayLike] = {}
    for column in PLAIN_COLUMNS:
        if column.name not in table.columns or column.name == AFTER:
            continue
        if column.name in CATEGORIES:
            columns[column.name] = table.columns[column.name]
        else:
            columns[column.name] = table.numbers(column.name, column.empty)
    for name in table.columns:
        if name.endswith(ASKED):
            columns[name] = table.numbers(name, 0.0)
    kept = np.isin(numbered.lines, table.lines)
    return Trace.from_columns(
        columns,
        name=trace_name(path),
        dropped=(*idle, *no_gpu),
        notes=lost_note(edges, kept, "no GPU"),
        locate=table.locate,
        edges=selected(edges, kept, len(kept)),
    )


def write_csv(trace: Trace, path: str | Path) -> None:
    """Write a trace as plain CSV, submit times as in its own file; `read_csv` gives the same jobs."""
    path = Path(path)
    absent = trace.requested in ("exact", "absent")
    names = [name for name in COLUMNS if name != "requested_time" or not absent]
    cells = []
    for name in names:
        values = getattr(trace, name)
        if name in CATEGORIES:
            labels = (*trace.labels[name], "")  # code -1 is the last
            cells.append([labels[code] for code in values.tolist()])
        elif name == "job_id":
            cells.append([str(value) for value in values.tolist()])
        else:
            shifted = values + trace.origin if name == "submit_time" else values
            cells.append(["" if value != value else f"{value:.17g}" for value in shifted.tolist()])
    if len(trace.after):
        names.append(AFTER)
        cells.append(_after_cells(trace, path))
    for name, values in trace.asks.items():
        names.append(name + ASKED)
        cells.append([f"{value:.17g}" for value in values.tolist()])
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(zip(*cells, strict=True))
    try:
        path.write_text(text.getvalue(), encoding="utf-8")
    except OSError as error:
        raise TraceError(f"{path}: cannot be written: {error.strerror or error}") from None


def _dependencies(table: CsvTable) -> Edges:
    """Return the edges between the rows of the file that column `after` names."""
    if not any(table.columns.get(AFTER, ())):
        return no_edges()
    job_id = check_job_ids(table.numbers("job_id"), table.locate)
    stage, stages = as_codes("stage", table.columns.get("stage", [""] * len(job_id)), None, table.locate)
    edges = resolve(table.columns[AFTER], job_id, stage, stages, table.locate)
    refuse_cycles(edges, job_id, table.locate)  # before a row of one is dropped
    return edges


def _after_cells(trace: Trace, path: Path) -> list[str]:
    """Return column `after`: the ids of the jobs that each one comes after."""
    ids = trace.job_id.tolist()
    if len(set(ids)) < len(ids):
        raise TraceError(f"{path}: several jobs have one id, so that column {AFTER!r} cannot name them")
    return ["|".join(str(ids[row]) for row in rows) for rows in predecessor_lists(trace.after, len(trace))]


def _refuse_repeated_ids(table: CsvTable) -> None:
    seen: dict[str, int] = {}
    for row, text in enumerate(table.columns["job_id"]):
        first = seen.setdefault(text, row)
        if first != row:
            raise fail(table.locate(row), "job_id", f"{text!r} was used in line {table.lines[first]}")
