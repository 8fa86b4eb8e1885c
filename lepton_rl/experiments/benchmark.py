"""`lepton-rl benchmark FILE`: policies x workloads x seeds on the same windows, with intervals.

benchmark.yaml    the resolved file          rows.jsonl       one line for each policy and window, at once
benchmark_run.json  versions, commit, files    benchmark.json   rows and comparisons; .csv and .md for reading
report.html       one page with pictures     *.png            the pictures
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from lepton_rl.agents import CompiledPolicy, RuleNames, check_requested_times, rule_names
from lepton_rl.agents.bundle import LearnedPolicy
from lepton_rl.agents.optimum import check_solvable, solver, steps_per_second
from lepton_rl.core import Policy
from lepton_rl.errors import ConfigError, LeptonError, MissingExtra, counted, nearest, shown
from lepton_rl.experiments.benchmark_config import (
    ENOUGH_WINDOWS,
    OPTIMUM,
    PROTOCOLS,
    BenchmarkConfig,
    FgdConfig,
    OptimumConfig,
)
from lepton_rl.experiments.loader import checked, clash, resolved_yaml, tree_of
from lepton_rl.experiments.outputs import check_run_folder
from lepton_rl.experiments.prepared import Outcome, Prepared
from lepton_rl.experiments.run_lock import alone_in
from lepton_rl.experiments.runner import Contender, Measurement, Task, run_tasks
from lepton_rl.experiments.runs import (
    BENCHMARK_FILE,
    RUN_FILE,
    digest_of,
    make_folder,
    new_folder,
    provenance,
    read_record,
    say,
    write_atomically,
    write_json,
)
from lepton_rl.experiments.summary import summarize
from lepton_rl.experiments.tables import csv_text, markdown, print_block
from lepton_rl.experiments.windows import WindowBench, Windows, make_windows
from lepton_rl.experiments.yaml_tree import Node
from lepton_rl.workloads import Trace, resolve_data_path


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """A finished benchmark: its folder, its page (None where there is none to write), what it found."""

    folder: Path
    report: Path | None
    outcome: Outcome

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each policy, rule, blocking, workload and metric, or as the protocol has it; unrounded."""
        return self.outcome.rows

    def print_tables(self, console: Console | None = None) -> None:
        """Print the tables on standard output."""
        for block in self.outcome.blocks:
            print_block(block, console or Console())


def benchmark(
    file: str | Path,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    seed: int | None = None,
    console: Console | None = None,
    strict: bool = False,
) -> BenchmarkResult:
    """Run the benchmark that the experiment file describes.

    Args:
        file: the YAML file.
        overrides: "key.path=value".
        out: run folder; an unfinished run of the same experiment in it is continued. A new one in runs/ if
            None.
        seed: instead of the file's.
        console: for progress; standard error if None.
        strict: refuse a workload with jobs larger than its cluster, before anything is written.

    Raises:
        ConfigError: the file is wrong, or the folder holds another experiment or a run that is under way.
        TraceError: a workload cannot be used.
    """
    console = console or Console(stderr=True)
    prepared = _prepared(file, overrides, seed, strict)
    folder = out or new_folder(prepared.config.name)
    is_new = not folder.exists()
    if not (folder / BENCHMARK_FILE).is_file():
        check_run_folder(folder)
    make_folder(folder)
    with alone_in(folder):
        _claim(prepared, folder)
        rows = folder / "rows.jsonl"
        try:
            measurements = run_tasks(prepared.bench, prepared.tasks, rows, prepared.config.processes, console)
        except LeptonError:
            if is_new and not (rows.is_file() and rows.stat().st_size):  # it holds nothing to go on from
                shutil.rmtree(folder)
            raise
        for text in prepared.notes:  # now: a benchmark that fails prints its error alone
            say(console, text)
        return _finish(prepared, folder, prepared.outcome(measurements), console)


def _prepared(file: str | Path, overrides: Sequence[str], seed: int | None, strict: bool) -> Prepared:
    """Return what the file asks for, checked as far as it can be before anything runs."""
    base = Path(file).absolute().parent
    tree = tree_of(file, overrides)
    if isinstance(tree.value, dict) and "protocol" in tree.value:
        return _protocol(tree, base, seed, strict)
    config = checked(tree, base, BenchmarkConfig)
    return _comparison(config if seed is None else config.model_copy(update={"seeds": (seed,)}), tree, strict)


def _protocol(tree: Node, base: Path, seed: int | None, strict: bool) -> Prepared:
    assert isinstance(tree.value, dict)
    name = tree.value["protocol"].plain()
    if not isinstance(name, str) or name not in PROTOCOLS:
        known = " or ".join(map(repr, PROTOCOLS))
        close = nearest(str(name), PROTOCOLS)
        raise ConfigError(f"{tree.key_places['protocol']}: protocol: {shown(name)} is not one of {known}{close}")
    config = checked(tree, base, PROTOCOLS[name])
    if isinstance(config, FgdConfig):
        from lepton_rl.experiments.fgd_protocol import prepare_fgd

        return prepare_fgd(config if seed is None else config.model_copy(update={"seeds": (seed,)}), strict)
    from lepton_rl.experiments.protocol import prepare_protocol

    return prepare_protocol(config if seed is None else config.model_copy(update={"seed": seed}), strict)


def _comparison(config: BenchmarkConfig, tree: Node, strict: bool) -> Prepared:
    built = {policy.label: policy.build() for policy in config.policies}
    if config.optimum is not None:
        solver()  # a missing one is named before anything runs
    contenders = _contenders(config, built, tree)
    windows = {workload.label: make_windows(workload, config.seeds, strict) for workload in config.workloads}
    for index, workload in enumerate(config.workloads):
        first = next(iter(windows[workload.label].traces.values()))[0]
        for policy in built.values():
            check_requested_times(policy, first, f"workloads.{index}.requested")
            if isinstance(policy, LearnedPolicy):
                policy.check_cluster(windows[workload.label].cluster)
        if config.optimum is not None:
            for trace in _every_trace(windows[workload.label]):
                check_solvable(trace)
    tasks = [
        Task(contender, workload.label, seed, index)
        for workload in config.workloads
        for contender in contenders
        for seed in config.seeds
        for index in range(workload.windows.count)
    ]
    # policies in Python are slow: they go first, so that no process is left alone with one at the end
    order = sorted(tasks, key=lambda task: isinstance(built.get(task.contender.label), CompiledPolicy))
    bench = WindowBench({policy.label: policy for policy in config.policies}, windows, config.timing, config.optimum)
    learned = frozenset(policy.label for policy in config.policies if policy.is_learned)

    def outcome(measurements: Sequence[Measurement]) -> Outcome:
        by_task = {measurement.task: measurement for measurement in measurements}
        return Outcome.of(
            summarize(
                [by_task[task] for task in tasks],
                workload.label,
                cluster=str(windows[workload.label].cluster),
                windows=_in_words(config, index),
                notes=(*_notes(windows[workload.label]), *_about_optimum(config.optimum, windows[workload.label])),
                dropped=windows[workload.label].too_large,
                left_out=windows[workload.label].dropped,
                learned=learned,
                block=windows[workload.label].block,
                seeds_share_windows=workload.windows.kind == "disjoint",
                optimum=(OPTIMUM, config.optimum.objective) if config.optimum is not None else None,
            )
            for index, workload in enumerate(config.workloads)
        )

    files = [policy.name.rpartition(":")[0] if ".py:" in policy.name else policy.name for policy in config.policies]
    sources = [*files, *(workload.path for workload in config.workloads)]
    return Prepared(config, bench, order, outcome, sources, _what_is_odd(config, windows))


def _contenders(config: BenchmarkConfig, built: Mapping[str, Policy], tree: Node) -> list[Contender]:
    """Return who is measured.

    Raises:
        ConfigError: two of them would be the same in the results.
    """
    found: dict[tuple[str, RuleNames], tuple[int, Contender]] = {}
    for index, policy in enumerate(config.policies):
        rules = rule_names(built[policy.label])
        key = (policy.policy, rules)
        if key in found:
            other, twin = found[key]
            raise clash(
                tree, "policies",
                f"{twin.label!r} and {policy.label!r} are both {policy.policy} with blocking {rules.blocking} and "
                f"placement {rules.placement}; leave one out, or give one of them a label",
                (other, index),
            )  # fmt: skip
        found[key] = index, Contender(policy.label, policy.policy, "repick", rules.blocking, rules.placement)
    yardstick = [] if config.optimum is None else [Contender(OPTIMUM, OPTIMUM, "clairvoyant", None, None)]
    return [*(contender for _, contender in found.values()), *yardstick]


def _claim(prepared: Prepared, folder: Path) -> None:
    """Record the experiment in the folder.

    Raises:
        ConfigError: it holds another experiment, the same one on files that have changed, or no run at all.
    """
    text = resolved_yaml(prepared.config.model_copy(update={"processes": None}))
    recorded, run = folder / BENCHMARK_FILE, folder / RUN_FILE
    if not recorded.is_file():
        check_run_folder(folder)
    elif recorded.read_text(encoding="utf-8") != text:
        raise ConfigError(f"{folder} holds another experiment, or this one with other settings; choose another --out")
    paths = {name: resolve_data_path(name, Path()) for name in prepared.sources if name is not None}
    digests = {name: digest_of(path) for name, path in sorted(paths.items()) if path.exists()}
    if recorded.is_file() and run.is_file():
        before = read_record(run).get("files", {})
        changed = [name for name in digests if before.get(name) != digests[name]]
        if changed:
            raise ConfigError(f"{changed[0]} has changed since {folder} was begun; choose another --out")
    else:
        write_json(run, {"begun": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "files": digests, **provenance()})
        write_atomically(recorded, text)


def _finish(
    prepared: Prepared,
    folder: Path,
    outcome: Outcome,
    console: Console,
) -> BenchmarkResult:
    """Write the tables, the pictures and the page."""
    config = prepared.config
    bench = prepared.bench if isinstance(prepared.bench, WindowBench) else None
    result = BenchmarkResult(folder, None, outcome)
    write_json(folder / "benchmark.json", {"name": config.name, "rows": outcome.rows, "workloads": outcome.details})
    write_atomically(folder / "benchmark.csv", csv_text(outcome.rows))
    write_atomically(folder / "benchmark.md", markdown(config.name, config.description, outcome.blocks))
    if not outcome.summaries:
        return result
    assert not isinstance(config, FgdConfig)
    try:
        from lepton_rl.experiments.report import write_report

        return BenchmarkResult(folder, write_report(config, folder, outcome.summaries, bench), outcome)
    except MissingExtra as error:
        say(console, f"no pictures and no report: {error}")
        return result


def _what_is_odd(config: BenchmarkConfig, windows: Mapping[str, Windows]) -> tuple[str, ...]:
    texts: list[str] = []
    for workload in config.workloads:
        texts += [f"{workload.label}: {text}" for text in _notes(windows[workload.label])]
        count = workload.windows.count * (1 if workload.windows.kind == "disjoint" else len(config.seeds))
        if count < ENOUGH_WINDOWS:
            texts.append(
                f"{workload.label}: {counted(count, 'window')} cannot rank policies; use {ENOUGH_WINDOWS} or more"
            )
    return tuple(texts)


def _notes(windows: Windows) -> tuple[str, ...]:
    return (*map(str, windows.dropped), *windows.notes)


def _every_trace(windows: Windows) -> list[Trace]:
    return [trace for traces in windows.traces.values() for trace in traces]


def _about_optimum(config: OptimumConfig | None, windows: Windows) -> tuple[str, ...]:
    """Return what the yardstick is, with the steps in which its solver counts time."""
    if config is None:
        return ()
    rate, is_rounded = max(map(steps_per_second, _every_trace(windows)))
    return (
        f"optimum: least {config.objective} without preemption, every run time and arrival known from the start; time "
        f"in steps of {1 / rate:g} s, {'to which it is rounded' if is_rounded else 'in which nothing is rounded'}",
    )


def _in_words(config: BenchmarkConfig, index: int) -> str:
    """Return what the windows of a workload are."""
    settings = config.workloads[index].windows
    seeds = f" for each of {len(config.seeds)} seeds" if len(config.seeds) > 1 else ""
    extra = "".join(
        f", {count:,} {what}" for count, what in ((settings.warmup, "warm-up"), (settings.cooldown, "after")) if count
    )
    return f"{counted(settings.count, f'{settings.kind} window')} of {counted(settings.jobs, 'job')}{extra}{seeds}"
