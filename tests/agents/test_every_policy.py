"""Every policy that has a name, under everything that may change at once: each job finishes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lepton_rl.agents import make_policy, policies, policy_name, run_policy
from lepton_rl.core import Placement, Policy
from lepton_rl.core.cluster import Tariffs
from lepton_rl.core.hardware import HourlySeries
from lepton_rl.errors import ConfigError, TraceError
from tests.simulator.dynamic_cases import (
    PARTS,
    DynamicCase,
    dynamic_cases,
    reference_cluster,
    without_requested_times,
)

NAMES = [policy.name for policy in policies()]
SETTINGS: dict[str, Sequence[dict[str, object]]] = {
    "genetic": [{"generations": 1, "moves": 4}, {"generations": 0, "energy_weight": 300.0, "window": 3}],
    "load_balancing": [{"least_gain": 0.25, "threshold": 0.1}],
    "gavel_max_min": [{}, {"preempt": True, "round_time": 5.0}],
    "gavel_max_throughput": [{}, {"preempt": True, "round_time": 5.0}],
    "predicted": [{"enough": 1}, {"enough": 1, "score": "saf"}],
    "reserve": [{"rho": 0.5, "t0": 2.0, "t1": 50.0}],
}
"""Where the defaults of a policy do little on jobs of seconds."""
HOURS = 24 * 30


def blockings(name: str) -> tuple[str, ...]:
    """What the policy's blocking may be set to."""
    field = type(make_policy(name)).model_fields.get("blocking")  # type: ignore[attr-defined]
    return () if field is None else get_args(field.annotation)


@st.composite
def made_policies(draw: st.DrawFn, name: str) -> Policy:
    """The policy, with any blocking that it takes."""
    chosen: dict[str, Any] = dict(draw(st.sampled_from(SETTINGS.get(name, [{}]))))
    if blockings(name):
        chosen["blocking"] = draw(st.sampled_from(blockings(name)))
    try:
        return make_policy(name, **chosen)
    except ConfigError:  # a preemptive order does not backfill
        return make_policy(name, **{**chosen, "blocking": "skip"})


@st.composite
def busy_cases(draw: st.DrawFn) -> DynamicCase:
    """Jobs that may want a type of GPU, and a cluster on which anything may change, priced hour by hour."""
    parts = draw(st.sampled_from([*((part,) for part in PARTS), ("heat",), (*PARTS, "heat"), (*PARTS, "heat")]))
    case = draw(dynamic_cases(parts, exact=False))
    empty, names = reference_cluster(case.cluster), [kind.name for kind in case.cluster.types]
    jobs = []
    for job in case.jobs:
        picky = replace(job, types=(draw(st.sampled_from(names)),)) if draw(st.booleans()) else job
        jobs.append(picky if empty.find(picky) is not None else job)
    prices = draw(st.lists(st.sampled_from([-20.0, 0.0, 30.0, 90.0]), min_size=2, max_size=4))
    series = HourlySeries.of(np.resize(prices, HOURS))
    rents = draw(st.lists(st.sampled_from([None, 0.0, 1.5]), min_size=3, max_size=3))
    groups = tuple(
        replace(group, rent_usd_per_hour=rent) for group, rent in zip(case.cluster.groups, rents, strict=False)
    )
    carbon = HourlySeries.of(series.values + 20.0)
    tariffs = draw(st.sampled_from([Tariffs(), Tariffs(series), Tariffs(series, carbon)]))
    return replace(case, jobs=jobs, cluster=replace(case.cluster, groups=groups, tariffs=tariffs))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data(), case=busy_cases(), placement=st.sampled_from(list(Placement)), timed=st.booleans())
def test_every_job_finishes(
    data: st.DataObject, case: DynamicCase, name: str, placement: Placement, timed: bool
) -> None:
    policy = data.draw(made_policies(name))
    case = case if timed else without_requested_times(case)
    if not timed and getattr(policy, "needs_requested_times", False):
        with pytest.raises(TraceError, match=f"^{policy_name(policy)}.* needs requested times"):
            run_policy(policy, case.trace, case.cluster, case.timing, placement)
        return
    outcome = run_policy(policy, case.trace, case.cluster, case.timing, placement)
    assert np.isfinite(outcome.finish).all()
    assert (outcome.finish >= outcome.submit).all()
