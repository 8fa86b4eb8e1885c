"""The optimum: against every order of starts in turn, and by hand."""

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_rl.agents import Priority, run_policy
from lepton_rl.agents.optimum import Objective, optimum
from lepton_rl.core import ClusterSpec
from lepton_rl.errors import ConfigError, MissingExtra, TraceError
from lepton_rl.workloads import Trace, lublin
from tests.agents.cases import CLUSTERS, plain_trace, traces

pytest.importorskip("ortools")
HYPOTHESIS = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow])
OBJECTIVES = st.sampled_from(["mean_jct", "mean_bounded_slowdown", "makespan"])


def starts_in_order(order: tuple[int, ...], trace: Trace, gpus: int) -> list[float]:
    """Start the jobs strictly in this order, each as early as it can; the starts by row."""
    starts = [0.0] * len(trace)
    now = 0.0
    for place, job in enumerate(order):
        now = max(now, float(trace.submit_time[job]))
        ends = sorted(starts[other] + float(trace.run_time[other]) for other in order[:place])
        for moment in [now, *(end for end in ends if end > now)]:
            held = sum(
                trace.gpus[other] for other in order[:place] if starts[other] + float(trace.run_time[other]) > moment
            )
            if held + trace.gpus[job] <= gpus:
                now = moment
                break
        starts[job] = now
    return starts


def least(trace: Trace, gpus: int, objective: str) -> float:
    """The best figure over all orders of starts, which hold an optimal schedule."""
    figures = []
    for order in itertools.permutations(range(len(trace))):
        finish = np.array(starts_in_order(order, trace, gpus)) + trace.run_time
        jct = finish - trace.submit_time
        if objective == "mean_jct":
            figures.append(float(jct.mean()))
        elif objective == "makespan":
            figures.append(float(finish.max() - trace.submit_time.min()))
        else:
            figures.append(float(np.maximum(1.0, jct / np.maximum(trace.run_time, 10.0)).mean()))
    return min(figures)


@HYPOTHESIS
@given(traces(shares=False, most=5), CLUSTERS, OBJECTIVES)
def test_no_order_of_starts_is_better(trace: Trace, cluster: ClusterSpec, objective: Objective) -> None:
    found = optimum(trace, cluster, objective)
    assert found.outcome.metrics()[objective] == pytest.approx(least(trace, cluster.gpus, objective), rel=1e-6)


@HYPOTHESIS
@given(traces(shares=False, most=8), CLUSTERS)
def test_no_heuristic_is_better(trace: Trace, cluster: ClusterSpec) -> None:
    best = optimum(trace, cluster).outcome.metrics()["mean_jct"]
    for score in ("fcfs", "sjf", "saf", "f1"):
        for blocking in ("head", "skip", "easy"):
            policy = Priority.model_validate({"score": score, "blocking": blocking})
            assert best <= run_policy(policy, trace, cluster).metrics()["mean_jct"] + 1e-9


def test_by_hand() -> None:
    # 2 GPUs. The gang of 4 s first, then the pair of 10 s, then the long job: 4 + 14 + 14 + 114 = 146. The pair
    # before the gang: 10 + 10 + 14 + 114 = 148. The long job from the start: 100 + 10 + 20 + 104 = 234.
    trace = plain_trace(run_time=[100.0, 4.0, 10.0, 10.0], gpus=[1.0, 2.0, 1.0, 1.0])
    found = optimum(trace, ClusterSpec.pool(2))
    assert found.order[0] == 1
    assert found.outcome.finish.tolist() == [114.0, 4.0, 14.0, 14.0]
    assert (found.resolution_s, found.is_rounded) == (1.0, False)


def test_it_waits_for_a_job_that_no_policy_knows_of() -> None:
    # One GPU: the short job comes a second after the long one, and goes before it.
    trace = plain_trace(submit_time=[0.0, 1.0], run_time=[1000.0, 1.0], gpus=[1.0, 1.0])
    assert optimum(trace, ClusterSpec.pool(1)).outcome.first_start.tolist() == [2.0, 1.0]
    # In makespan waiting has no use.
    assert optimum(trace, ClusterSpec.pool(1), "makespan").outcome.makespan == 1001.0


@pytest.mark.parametrize(
    ("run_time", "step", "is_rounded"),
    [(2.0, 1.0, False), (2.5, 1e-3, False), (2.000001, 1e-6, False), (1 / 3, 1e-6, True)],
)
def test_time_is_counted_in_the_coarsest_step_that_rounds_nothing(
    run_time: float, step: float, is_rounded: bool
) -> None:
    found = optimum(plain_trace(run_time=[run_time, 1.0], gpus=[1.0, 1.0]), ClusterSpec.pool(1))
    assert (found.resolution_s, found.is_rounded) == (step, is_rounded)
    assert found.outcome.run.tolist() == [run_time, 1.0]


def test_what_cannot_be_solved_is_refused() -> None:
    with pytest.raises(TraceError, match="the optimum is for 12 jobs or fewer, not 13"):
        optimum(plain_trace(run_time=[1.0] * 13, gpus=[1.0] * 13), ClusterSpec.pool(2))
    with pytest.raises(TraceError, match=r"job 2 asks for 0\.5 of one"):
        optimum(plain_trace(run_time=[1.0, 1.0], gpus=[1.0, 0.5]), ClusterSpec.pool(2))
    together = replace(lublin(12, 8, 0, 2.0), submit_time=np.zeros(12))
    with pytest.raises(ConfigError, match=r"no proof of the optimal mean_jct of 12 jobs was found within 0\.001 s"):
        optimum(together, ClusterSpec.pool(8), limit_s=0.001)


def test_without_ortools_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python", None)
    with pytest.raises(MissingExtra, match=r"lepton-rl\[solve\]"):
        optimum(plain_trace(run_time=[1.0], gpus=[1.0]), ClusterSpec.pool(1))
