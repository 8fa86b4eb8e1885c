"""The files that `simulate` and `evaluate` write: a row for each job, and a page with pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lepton_rl.cli.options import output_option
from lepton_rl.cli.printing import note
from lepton_rl.errors import ConfigError

if TYPE_CHECKING:
    from lepton_rl.core import ClusterSpec
    from lepton_rl.experiments.policy_config import PolicyConfig
    from lepton_rl.experiments.simulate import Simulation
    from lepton_rl.workloads import Trace

MOST_PLACED = 100_000
"""Jobs up to which `--jobs-out` records on which nodes they ran: some minutes at most."""

JobsOut = Annotated[Path | None, output_option("CSV to write: when each job ran, and where.")]
Report = Annotated[
    Path | None, output_option("Folder for report.html, a page with pictures of the run (extra report).")
]


def is_recorded(report: Path | None, jobs_out: Path | None, trace: "Trace", cluster: "ClusterSpec") -> bool:
    """Return whether a run is recorded, which is slower: for a page, or to say on which nodes its jobs ran."""
    return report is not None or (jobs_out is not None and cluster.nodes > 1 and len(trace) <= MOST_PLACED)


def write_jobs(simulation: "Simulation", jobs_out: Path | None) -> None:
    """Write the row of each job, where they are asked for; a note says where there were too many to say where."""
    if jobs_out is None:
        return
    simulation.write_jobs(jobs_out)
    if simulation.recording is None and simulation.outcome.cluster.nodes > 1:
        note(f"--jobs-out: where jobs ran is left out, for there are more than {MOST_PLACED:,} (--report records all)")


def check_jobs_out(jobs_out: Path | None, overwrite: bool, trace: str, *policies: "PolicyConfig") -> None:
    """Refuse a file of jobs that cannot be written, or that the command reads."""
    from lepton_rl.experiments.outputs import check_output_file

    if jobs_out is not None:
        check_output_file(jobs_out, overwrite, _inputs(trace, *policies))


def check_report(
    report: Path | None, jobs_out: Path | None, overwrite: bool, trace: str, *policies: "PolicyConfig"
) -> None:
    """Refuse a page that cannot be written, or that would replace what the command reads or writes."""
    if report is None:
        return
    from lepton_rl.experiments.run_report import check_report_folder

    check_report_folder(report, overwrite, _inputs(trace, *policies))
    if jobs_out is not None and jobs_out.resolve() in (report.resolve(), (report / "report.html").resolve()):
        raise ConfigError(f"--jobs-out {jobs_out} is what --report writes; name another file")


def _inputs(trace: str, *policies: "PolicyConfig") -> tuple[Path, ...]:
    """Return the files and folders that the command reads."""
    from lepton_rl.workloads import resolve_data_path

    sources = [policy.source for policy in policies if policy.source is not None]
    return (resolve_data_path(trace, Path()), *sources)


def write_report(simulations: Sequence["Simulation"], folder: Path | None) -> Path | None:
    """Write the page, where one is asked for, and return its file."""
    if folder is None:
        return None
    from lepton_rl.experiments.run_report import write_run_report

    return write_run_report(simulations, folder)
