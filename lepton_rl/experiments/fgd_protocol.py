"""FGD's published evaluation as an experiment: allocated and fragmented GPUs against load, on any pod list."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from statistics import stdev
from typing import Any

import numpy as np

from lepton_rl.errors import TraceError, counted
from lepton_rl.experiments.benchmark_config import FgdConfig
from lepton_rl.experiments.prepared import Outcome, Prepared
from lepton_rl.experiments.runner import Contender, Measurement, Task
from lepton_rl.experiments.statistics import estimate
from lepton_rl.experiments.tables import Block, TextTable
from lepton_rl.simulator.packing import (
    PUBLISHED,
    PackingProblem,
    PackingRules,
    inflated_arrivals,
    pack,
    packing_problem,
)
from lepton_rl.workloads import resolve_data_path
from lepton_rl.workloads.files import read_bytes, trace_name
from lepton_rl.workloads.openb import Nodes, Pods, read_nodes, read_pods, without_a_node

LOADS = (50, 80, 90, 95, 100, 110, 120, 130)
"""Percent of the cluster's GPUs that the pods until now have asked for."""
METRICS = {"gpu_alloc_pct": "GPU allocation, %", "fragmented_pct": "Fragmented GPUs, %"}
"""Both are shares of all GPUs of the cluster."""

# The authors' result files: mean and standard deviation over 10 seeds; fragmentation is given at five loads.
_FRAGMENTATION_LOADS = (50, 80, 90, 100, 130)
_MEANS: Mapping[tuple[str, str], tuple[float, ...]] = {
    ("gpu_alloc_pct", "random"): (49.97, 78.66, 85.02, 85.72, 86.30, 86.88, 87.28, 87.47),
    ("gpu_alloc_pct", "best-fit"): (50.01, 80.02, 89.99, 92.82, 92.86, 92.94, 93.00, 93.08),
    ("gpu_alloc_pct", "fgd"): (50.01, 80.02, 89.98, 94.91, 95.23, 95.30, 95.35, 95.39),
    ("fragmented_pct", "random"): (15.10, 15.92, 14.48, 13.49, 12.43),
    ("fragmented_pct", "best-fit"): (10.81, 8.29, 7.41, 7.05, 6.85),
    ("fragmented_pct", "fgd"): (8.93, 5.97, 5.00, 4.73, 4.57),
}
_DEVIATIONS: Mapping[tuple[str, str], tuple[float, ...]] = {
    ("gpu_alloc_pct", "random"): (0.09, 0.40, 0.29, 0.34, 0.33, 0.34, 0.31, 0.32),
    ("gpu_alloc_pct", "best-fit"): (0.04, 0.02, 0.04, 0.15, 0.14, 0.13, 0.14, 0.13),
    ("gpu_alloc_pct", "fgd"): (0.04, 0.02, 0.05, 0.06, 0.11, 0.10, 0.10, 0.08),
    ("fragmented_pct", "random"): (0.34, 0.30, 0.27, 0.32, 0.32),
    ("fragmented_pct", "best-fit"): (0.14, 0.18, 0.13, 0.14, 0.13),
    ("fragmented_pct", "fgd"): (0.08, 0.04, 0.04, 0.11, 0.09),
}
_PUBLISHED_LISTS = (
    "1ee7ed79c27a3b0861cda8ddba86a004c6aba904caafa329a76ae93ca63834a8",  # openb_pod_list_default.csv
    "2beca64b4d3dfa342036a34b56a495c6cef9225db836c81f541282cb1df320b5",  # openb_node_list_gpu_node.csv
)


def published(metric: str, policy: str, load: int) -> tuple[float, float] | None:
    """Return the published mean and standard deviation, or None where none is given."""
    loads = LOADS if metric == "gpu_alloc_pct" else _FRAGMENTATION_LOADS
    if load not in loads:
        return None
    place = loads.index(load)
    return _MEANS[metric, policy][place], _DEVIATIONS[metric, policy][place]


@dataclass(frozen=True, eq=False)
class FgdBench:
    """What a worker needs."""

    problem: PackingProblem
    rules: PackingRules

    def measure(self, task: Task) -> Measurement:
        """Pack one sequence of arrivals; it and the order of the nodes are the same for every policy."""
        begun = time.process_time()
        drawing, packing = (np.random.default_rng(seed) for seed in np.random.SeedSequence(task.seed).spawn(2))
        arrivals = inflated_arrivals(self.problem, max(LOADS), drawing)
        history = pack(self.problem, arrivals, task.contender.policy, packing, self.rules)
        capacity = self.problem.gpu_milli
        at = np.searchsorted(100 * history.arrived_gpu_milli, np.array(LOADS) * capacity)
        metrics = {}
        for metric, milli in (
            ("gpu_alloc_pct", history.allocated_gpu_milli),
            ("fragmented_pct", history.fragmented_gpu_milli),
        ):
            for load, figure in zip(LOADS, (100 * milli[at] / capacity).tolist(), strict=True):
                metrics[_key(metric, load)] = float(figure)
        return Measurement(task, metrics, [], round(time.process_time() - begun, 6))


def prepare_fgd(config: FgdConfig, strict: bool = False) -> Prepared:
    """Return what the protocol measures; with `strict`, a pod that its GPU model keeps from every node is an error.

    Raises:
        TraceError: a list cannot be used, or holds a pod larger than every node.
    """
    paths = [resolve_data_path(name, Path()) for name in (config.workload.pods, config.workload.nodes)]
    pods, nodes = read_pods(paths[0]), read_nodes(paths[1])
    notes = _without_a_node(pods, nodes, strict)
    bench = FgdBench(packing_problem(nodes, pods), config.rules)
    name = trace_name(paths[0])
    tasks = [
        Task(Contender(policy, policy, "published", None, None), name, seed, 0)
        for policy in config.policies
        for seed in config.seeds
    ]
    lists = tuple(sha256(read_bytes(path)).hexdigest() for path in paths)
    beside = lists == _PUBLISHED_LISTS and config.rules == PUBLISHED

    def outcome(measurements: Sequence[Measurement]) -> Outcome:
        rows = _rows(config, measurements)
        heading = (
            f"{name} on {counted(len(nodes.gpus), 'node')} with {counted(int(nodes.gpus.sum()), 'GPU')}: "
            f"{counted(len(config.seeds), 'seed')}"
        )
        block = Block(heading, (*notes, *_in_words(config.rules)), _tables(config, measurements, beside))
        details = {"workload": name, "notes": list(block.notes), "seeds": list(config.seeds)}
        return Outcome(rows, [details], (block,))

    sources = (config.workload.pods, config.workload.nodes)
    said = [f"{name}: {note}" for note in notes]
    return Prepared(config, bench, tasks, outcome, sources, said)


def _without_a_node(pods: Pods, nodes: Nodes, strict: bool) -> list[str]:
    """Return a note on pods that are always dropped, if there are any."""
    gone = without_a_node(pods, nodes)
    if not gone.any():
        return []
    row = int(gone.argmax())
    place, models = pods.locate(row), " or ".join(sorted(pods.models[row]))
    if strict:
        raise TraceError(f"{place}: no node with GPUs of model {models} can hold this pod")
    first = f"line {place.rpartition(':')[2]}: {models}"
    always = f"always dropped: no node with GPUs of the models asked for can hold {counted(int(gone.sum()), 'pod')}"
    return [f"{always} ({first}{'; ...' if gone.sum() > 1 else ''})"]


def _key(metric: str, load: int) -> str:
    return f"{metric}_{load}"


def _in_words(rules: PackingRules) -> list[str]:
    """Return what differs from the published rules."""
    texts = []
    if rules.ties == "anew":
        texts.append("ties between nodes are drawn anew each time, which is not the published rule")
    if rules.share_gpu != "own":
        texts.append(f"random and best-fit choose the GPU for a part of one by the rule {rules.share_gpu}")
    if rules.memory:
        texts.append("memory binds too")
    return texts


def _sample(measurements: Sequence[Measurement], policy: str, metric: str, load: int) -> list[float]:
    """Return one figure for each seed."""
    return [
        measurement.metrics[_key(metric, load)]
        for measurement in measurements
        if measurement.task.contender.policy == policy
    ]


def _deviation(sample: list[float]) -> float | None:
    return stdev(sample) if len(sample) > 1 else None


def _rows(config: FgdConfig, measurements: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Return one row for each policy and load."""
    rows = []
    for policy in config.policies:
        for load in LOADS:
            row: dict[str, Any] = {"policy": policy, "load_pct": load}
            for metric in METRICS:
                sample = _sample(measurements, policy, metric, load)
                row[metric] = {"mean": float(np.mean(sample)), "sd": _deviation(sample)}
            rows.append({**row, "seeds": len(config.seeds)})
    return rows


def _tables(config: FgdConfig, measurements: Sequence[Measurement], beside: bool) -> tuple[TextTable, ...]:
    """Return a table of each metric for readers, with the published figures if `beside`."""
    return tuple(_table(metric, config, measurements, beside) for metric in METRICS)


def _table(metric: str, config: FgdConfig, measurements: Sequence[Measurement], beside: bool) -> TextTable:
    rows = []
    for policy in config.policies:
        for load in LOADS:
            cells = [policy, str(load), _cell(_sample(measurements, policy, metric, load))]
            if beside:
                figures = published(metric, policy, load)
                cells.append("" if figures is None else f"{figures[0]:.2f} ± {figures[1]:.2f}")
            rows.append(tuple(cells))
    heads = ("policy", "load, %", "measured", *(["published"] if beside else []))
    return TextTable(f"{METRICS[metric]}: mean ± sd over seeds [95 % interval of the mean]", heads, tuple(rows))


def _cell(sample: list[float]) -> str:
    figures = estimate(sample)
    deviation = _deviation(sample)
    if deviation is None or figures.low is None or figures.high is None:
        return f"{figures.mean:.2f}"
    return f"{figures.mean:.2f} ± {deviation:.2f} [{figures.low:.2f}, {figures.high:.2f}]"
