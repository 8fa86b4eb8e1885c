"""`python -m benchmarks.policies RUN...`: the tables of a benchmark's policies, with how long a decision of each takes.

Decisions are timed here, on the first windows of each workload, and not in the benchmark: its results stay the same
every time. A decision is `decide` at an instant at which a job waits, in CPU time of its thread: other programs disturb
that less than wall time. The least of `repeats` runs counts, decision by decision.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import machine, replace_between
from lepton_rl.agents import RuleNames, rule_names
from lepton_rl.core import Policy
from lepton_rl.experiments.benchmark_config import BenchmarkConfig
from lepton_rl.experiments.loader import load
from lepton_rl.experiments.policy_config import PolicyConfig
from lepton_rl.experiments.runs import BENCHMARK_FILE, write_json
from lepton_rl.experiments.statistics import Estimate
from lepton_rl.experiments.tables import figure, interval
from lepton_rl.experiments.windows import Windows, make_windows
from lepton_rl.simulator import SimulatedCluster, Timing

BEGIN = "<!-- all policies: begin -->"
END = "<!-- all policies: end -->"
TIMES_FILE = "decisions.json"
METRICS = {
    "mean_jct": "mean JCT, s",
    "mean_bounded_slowdown": "bounded slowdown",
    "energy_kwh": "energy, kWh",
    "electricity_usd": "electricity, USD",
    "fairness": "fairness",
}
HIGHER_IS_BETTER = ("fairness",)
AGAINST = "mean_jct"
Row = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Time the decisions, print the tables, and write them into a page where one is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.policies", description=__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="run folders of finished `lepton-rl benchmark`"
    )
    parser.add_argument("--markdown", type=Path, metavar="PAGE", help="replace the tables between the markers of PAGE")
    parser.add_argument("--windows", type=int, default=3, help="of each workload, on which decisions are timed")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each window, of which the least times count")
    parser.add_argument("--keep-times", action="store_true", help=f"do not time again where RUN has {TIMES_FILE}")
    chosen = parser.parse_args(arguments)
    lines: list[str] = []
    for run in chosen.runs:
        config = load(run / BENCHMARK_FILE, BenchmarkConfig)
        if not (chosen.keep_times and (run / TIMES_FILE).is_file()):
            write_json(run / TIMES_FILE, {"machine": machine(), **_timed(config, chosen.windows, chosen.repeats)})
        results, times = (json.loads((run / name).read_text()) for name in ("benchmark.json", TIMES_FILE))
        lines += table_lines(config, results, times)
    facts = times["machine"]
    lines.append(
        f"Decisions on {facts['processor']}, Python {facts['python']}: the first {times['windows']} windows, least of "
        f"{times['repeats']} runs."
    )
    print("\n".join(lines))
    if chosen.markdown:
        replace_between(chosen.markdown, BEGIN, END, lines)
    return 0


def decision_seconds(policy: Policy, trace: Any, cluster: Any, timing: Timing | None = None) -> NDArray[np.float64]:
    """Return the CPU seconds of each decision of one run at which a job waited."""
    simulated = SimulatedCluster(trace, cluster, timing=timing)
    seconds = []
    while simulated.advance():
        snapshot = simulated.snapshot()
        began = time.thread_time()
        actions = policy.decide(snapshot)
        taken = time.thread_time() - began
        if len(snapshot.queue):
            seconds.append(taken)
        for action in actions:
            simulated.apply(action)
    return np.array(seconds)


def _timed(config: BenchmarkConfig, windows: int, repeats: int) -> dict[str, Any]:
    found: dict[str, Any] = {"windows": windows, "repeats": repeats, "microseconds": {}}
    for workload in config.workloads:
        cut = make_windows(workload, config.seeds)
        print(f"{workload.label} ...", end="", file=sys.stderr, flush=True)
        began = time.perf_counter()
        found["microseconds"][workload.label] = {
            policy.label: _percentiles(policy, cut, config, windows, repeats) for policy in config.policies
        }
        print(f" {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def _percentiles(
    policy: PolicyConfig, cut: Windows, config: BenchmarkConfig, windows: int, repeats: int
) -> dict[str, float]:
    """Return p50, p99 (microseconds) and the number of decisions."""
    seed = config.seeds[0]
    traces = cut.traces[seed][:windows]
    decision_seconds(policy.build(seed=seed), traces[0], cut.cluster, config.timing)  # compiles what is not
    least = [
        np.min(
            [
                decision_seconds(policy.build(seed=seed), trace, cut.cluster, config.timing)
                for _ in range(repeats)
            ],
            axis=0,
        )
        for trace in traces
    ]  # fmt: skip
    every = np.concatenate(least)
    middle, tail = np.percentile(every, (50, 99)) * 1e6
    return {"p50": round(float(middle), 1), "p99": round(float(tail), 1), "decisions": len(every)}


def table_lines(config: BenchmarkConfig, results: Mapping[str, Any], times: Mapping[str, Any]) -> list[str]:
    """Return a Markdown table for each workload."""
    lines: list[str] = []
    who = {policy.label: (policy.policy, rule_names(policy.build())) for policy in config.policies}
    for detail in results["workloads"]:
        workload = detail["workload"]
        rows = [row for row in results["rows"] if row["workload"] == workload]
        metrics = [name for name in METRICS if any(row["metric"] == name for row in rows)]
        strongest = detail["strongest_heuristic"][AGAINST]
        heads = ["policy", *(METRICS[name] for name in metrics), "won–lost–tied in JCT", "decision p50, µs", "p99, µs"]
        lines += [f"**{workload}**: {detail['windows']} on {detail['cluster']}.", "", _line(heads)]
        lines.append("|---|" + "---:|" * (len(heads) - 1))
        best = {name: _best(rows, name) for name in metrics}
        for label, key in who.items():
            cells = [_cell(_row(rows, key, name), best[name]) for name in metrics]
            micro = times["microseconds"][workload][label]
            against = _row([row for row in detail["against_the_strongest"] if row["metric"] == AGAINST], key)
            verdict = "strongest" if _is(strongest, key) else f"{against['wins']}–{against['losses']}–{against['ties']}"
            lines.append(_line([label, *cells, verdict, figure(micro["p50"]), figure(micro["p99"])]))
        lines.append("")
    return lines


def _is(row: Row, key: tuple[str, RuleNames]) -> bool:
    policy, rules = key
    return (row["policy"], row["blocking"], row["placement"]) == (policy, rules.blocking, rules.placement)


def _row(rows: Sequence[Row], key: tuple[str, RuleNames], metric: str | None = None) -> Row:
    return next(row for row in rows if _is(row, key) and metric in (None, row["metric"]))


def _best(rows: Sequence[Row], metric: str) -> float:
    means = [row["mean"] for row in rows if row["metric"] == metric]
    return float(max(means) if metric in HIGHER_IS_BETTER else min(means))


def _cell(row: Row, best: float) -> str:
    text = interval(Estimate(row["mean"], row["low"], row["high"], row["n"]))
    return f"**{text}**" if figure(row["mean"]) == figure(best) else text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
