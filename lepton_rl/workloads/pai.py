"""Alibaba PAI jobs as resampled by GAIA (Hanafy et al., ASPLOS 2024): one CSV row for each job.

Columns: arrival_time and length in hours, cpus the units held while running; a unit counts as one GPU. Trace:
Weng et al., NSDI 2022.
"""

from pathlib import Path

from lepton_rl.workloads.files import trace_name
from lepton_rl.workloads.tables import read_table
from lepton_rl.workloads.trace import Trace

PAI_COLUMNS = ("arrival_time", "length", "cpus")

_HOUR = 3600.0


def read_pai(path: str | Path) -> Trace:
    """Read pai-100k.csv; jobs are numbered from 1 in the order of the file.

    Rows with length 0 or no unit are dropped and counted.
    """
    path = Path(path)
    table = read_table(path, PAI_COLUMNS, PAI_COLUMNS)
    first_line = table.lines[0]
    table, idle = table.drop(table.numbers("length") == 0.0, "length 0")
    table, no_gpu = table.drop(table.numbers("cpus") == 0.0, "no GPU")
    return Trace.from_columns(
        {
            "job_id": table.lines - first_line + 1,
            "submit_time": table.numbers("arrival_time") * _HOUR,
            "run_time": table.numbers("length") * _HOUR,
            "gpus": table.numbers("cpus"),
        },
        name=trace_name(path),
        dropped=(*idle, *no_gpu),
        locate=table.locate,
    )
