"""The Microsoft Philly trace as reduced by Pollux (Qiao et al., OSDI 2021): one CSV row for each job.

Columns: timestamp (local date and time), duration (s), num_gpus, gpu_time (GPU-seconds, not used) and
cluster, the virtual cluster of the job, which becomes its queue. Trace: Jeon et al., USENIX ATC 2019.
"""

from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lepton_rl.workloads.columns import fail
from lepton_rl.workloads.files import trace_name
from lepton_rl.workloads.tables import CsvTable, read_table
from lepton_rl.workloads.trace import Trace

PHILLY_COLUMNS = ("timestamp", "duration", "num_gpus", "gpu_time", "cluster")


def read_philly(path: str | Path) -> Trace:
    """Read philly.csv; jobs are numbered from 1 in the order of the file.

    `origin` is the first timestamp in seconds since 1970, read as if it were UTC: the file has no time zone.
    Rows with duration 0 or no GPU are dropped and counted.
    """
    path = Path(path)
    table = read_table(path, PHILLY_COLUMNS, PHILLY_COLUMNS)
    table.numbers("gpu_time")
    first_line = table.lines[0]
    table, idle = table.drop(table.numbers("duration") == 0.0, "duration 0")
    table, no_gpu = table.drop(table.numbers("num_gpus") == 0.0, "no GPU")
    return Trace.from_columns(
        {
            "job_id": table.lines - first_line + 1,
            "submit_time": _seconds(table, "timestamp"),
            "run_time": table.numbers("duration"),
            "gpus": table.numbers("num_gpus"),
            "queue": table.columns["cluster"],
        },
        name=trace_name(path),
        dropped=(*idle, *no_gpu),
        locate=table.locate,
    )


def _seconds(table: CsvTable, column: str) -> NDArray[np.float64]:
    """Return timestamps as seconds since 1970, without regard to time zones."""
    seconds = np.empty(len(table.lines))
    epoch = datetime(1970, 1, 1)
    for row, text in enumerate(table.columns[column]):
        try:
            stamp = datetime.fromisoformat(text)
            seconds[row] = (stamp - epoch).total_seconds()
        except (ValueError, TypeError):  # TypeError: the stamp has a time zone
            problem = f"{text!r} is not a local date and time such as 2017-09-25 10:30:41"
            raise fail(table.locate(row), column, problem) from None
    return seconds
