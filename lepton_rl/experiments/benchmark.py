"""`lepton-rl benchmark FILE`: policies x workloads x seeds on the same windows, with intervals.

benchmark.yaml    the resolved file          rows.jsonl       one line for each policy and window, at once
benchmark_run.json  versions, commit, files    benchmark.json   rows and comparisons; .csv and .md for reading
report.html       one page with pictures     *.png            the pictures
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lepton_rl.agents.compiled import CompiledPolicy
from lepton_rl.errors import ConfigError, MissingExtra
from lepton_rl.experiments.benchmark_config import ENOUGH_WINDOWS, BenchmarkConfig, ProtocolConfig
from lepton_rl.experiments.loader import checked, resolved_yaml, tree_of
from lepton_rl.experiments.runner import Task, run_tasks
from lepton_rl.experiments.runs import (
    RUN_FILE,
    digest_of,
    is_training_run,
    make_folder,
    new_folder,
    provenance,
    say,
    write_atomically,
    write_json,
)
from lepton_rl.experiments.summary import WorkloadSummary, summarize
from lepton_rl.experiments.tables import csv_text, markdown, print_summary
from lepton_rl.experiments.windows import WindowBench, Windows, make_windows
from lepton_rl.workloads import resolve_data_path


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """A finished benchmark: its folder, its page (None without the extra `report`), its tables."""

    folder: Path
    report: Path | None
    summaries: tuple[WorkloadSummary, ...]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each policy, rule, blocking, workload and metric, unrounded."""
        return [row for summary in self.summaries for row in summary.rows()]

    def print_tables(self, console: Console | None = None) -> None:
        """Print the tables on standard output."""
        for summary in self.summaries:
            print_summary(summary, console or Console())


def benchmark(
    file: str | Path,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    seed: int | None = None,
    console: Console | None = None,
) -> BenchmarkResult:
    """Run the benchmark that the experiment file describes.

    Args:
        file: the YAML file.
        overrides: "key.path=value".
        out: run folder; an unfinished run of the same experiment in it is continued. A new one in runs/ if
            None.
        seed: instead of the file's.
        console: for progress; standard error if None.

    Raises:
        ConfigError: the file is wrong, or the folder holds another experiment.
        TraceError: a workload cannot be used.
    """
    console = console or Console(stderr=True)
    base = Path(file).absolute().parent
    tree = tree_of(file, overrides)
    if isinstance(tree.value, dict) and "protocol" in tree.value:
        from lepton_rl.experiments.protocol import protocol_summaries

        protocol = checked(tree, base, ProtocolConfig)
        protocol = protocol if seed is None else protocol.model_copy(update={"seed": seed})
        folder = _claimed(protocol, [protocol.workload.path], out)
        return _finish(protocol, folder, protocol_summaries(protocol, folder, console), None, console)
    config = checked(tree, base, BenchmarkConfig)
    config = config if seed is None else config.model_copy(update={"seeds": (seed,)})
    built = {policy.label: policy.build() for policy in config.policies}
    windows = {workload.label: make_windows(workload, config.seeds) for workload in config.workloads}
    _say_what_is_odd(config, windows, console)
    sources = [
        policy.name.rpartition(":")[0] if ".py:" in policy.name else policy.name for policy in config.policies
    ]
    folder = _claimed(config, [*sources, *(workload.path for workload in config.workloads)], out)
    tasks = [
        Task(
            policy.label,
            "repick",
            getattr(built[policy.label], "blocking", None),
            workload.label,
            seed,
            index,
        )
        for workload in config.workloads
        for policy in config.policies
        for seed in config.seeds
        for index in range(workload.windows.count)
    ]
    # policies in Python are slow: they go first, so that no process is left alone with one at the end
    order = sorted(range(len(tasks)), key=lambda i: isinstance(built[tasks[i].policy], CompiledPolicy))
    bench = WindowBench({policy.label: policy for policy in config.policies}, windows, config.timing)
    done = run_tasks(bench, [tasks[i] for i in order], folder / "rows.jsonl", config.processes, console)
    by_task = {measurement.task: measurement for measurement in done}
    measurements = [by_task[task] for task in tasks]
    learned = frozenset(policy.label for policy in config.policies if policy.is_learned)
    summaries = tuple(
        summarize(
            measurements,
            workload.label,
            cluster=str(windows[workload.label].cluster),
            windows=_in_words(config, index),
            notes=_notes(windows[workload.label]),
            learned=learned,
            block=windows[workload.label].block,
            seeds_share_windows=workload.windows.kind == "disjoint",
        )
        for index, workload in enumerate(config.workloads)
    )
    return _finish(config, folder, summaries, bench, console)


def _claimed(
    config: BenchmarkConfig | ProtocolConfig, sources: Sequence[str | None], out: Path | None
) -> Path:
    """Return the run folder, with the experiment recorded in it.

    Raises:
        ConfigError: it holds another experiment, or the same one on files that have changed.
    """
    folder = out or new_folder(config.name)
    make_folder(folder)
    text = resolved_yaml(config.model_copy(update={"processes": None}))
    recorded = folder / "benchmark.yaml"
    if recorded.is_file() and recorded.read_text(encoding="utf-8") != text:
        raise ConfigError(
            f"{folder} holds another experiment, or this one with other settings; choose another --out"
        )
    if not recorded.is_file() and any(folder.iterdir()) and not is_training_run(folder):
        raise ConfigError(f"{folder} is not empty and holds neither a benchmark nor a training; choose another --out")
    paths = {name: resolve_data_path(name, Path()) for name in sources if name is not None}
    digests = {name: digest_of(path) for name, path in sorted(paths.items()) if path.exists()}
    run = folder / RUN_FILE
    if run.is_file():
        before = json.loads(run.read_text(encoding="utf-8")).get("files", {})
        changed = [name for name in digests if before.get(name) != digests[name]]
        if changed:
            raise ConfigError(f"{changed[0]} has changed since {folder} was begun; choose another --out")
    else:
        write_json(run, {"begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "files": digests, **provenance()})
    write_atomically(recorded, text)
    return folder


def _finish(
    config: BenchmarkConfig | ProtocolConfig,
    folder: Path,
    summaries: tuple[WorkloadSummary, ...],
    bench: WindowBench | None,
    console: Console,
) -> BenchmarkResult:
    """Write the tables, the pictures and the page."""
    result = BenchmarkResult(folder, None, summaries)
    details = [summary.details() for summary in summaries]
    write_json(folder / "benchmark.json", {"name": config.name, "rows": result.rows, "workloads": details})
    write_atomically(folder / "benchmark.csv", csv_text(result.rows))
    write_atomically(folder / "benchmark.md", markdown(config.name, config.description, summaries))
    try:
        from lepton_rl.experiments.report import write_report

        return BenchmarkResult(folder, write_report(config, folder, summaries, bench), summaries)
    except MissingExtra as error:
        say(console, f"no pictures and no report: {error}")
        return result


def _say_what_is_odd(config: BenchmarkConfig, windows: Mapping[str, Windows], console: Console) -> None:
    for workload in config.workloads:
        for text in _notes(windows[workload.label]):
            say(console, f"{workload.label}: {text}")
        count = workload.windows.count * (1 if workload.windows.kind == "disjoint" else len(config.seeds))
        if count < ENOUGH_WINDOWS:
            say(
                console,
                f"{workload.label}: {count} windows do not rank policies; use {ENOUGH_WINDOWS} or more",
            )


def _notes(windows: Windows) -> tuple[str, ...]:
    dropped = tuple(
        f"dropped {entry.count} jobs or rows: {entry.reason} ({'; '.join(entry.examples[:3])}"
        f"{'; ...' if entry.count > 3 else ''})"
        for entry in windows.dropped
    )
    return (*dropped, *windows.notes)


def _in_words(config: BenchmarkConfig, index: int) -> str:
    """Return what the windows of a workload are."""
    settings = config.workloads[index].windows
    seeds = f" for each of {len(config.seeds)} seeds" if len(config.seeds) > 1 else ""
    extra = "".join(
        f", {count:,} {what}"
        for count, what in ((settings.warmup, "warm-up"), (settings.cooldown, "after"))
        if count
    )
    return f"{settings.count} {settings.kind} windows of {settings.jobs:,} jobs{extra}{seeds}"
