"""Another policy."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from lepton_rl.agents import check_requested_times, make_policy, policies, with_rules
from lepton_rl.core import Policy
from lepton_rl.errors import LeptonError
from lepton_rl.experiments.advice.candidate import Candidate
from lepton_rl.experiments.advice.study import MOST_JOBS_IN_PYTHON, Idea, LeftOut, Study, is_compiled, policy_words

Spec = Mapping[str, Any]

TIMELESS: tuple[Spec, ...] = (
    {"name": "fcfs", "blocking": "skip"},
    {"name": "smallest", "blocking": "skip"},
)
TIMED: tuple[Spec, ...] = (
    {"name": "fcfs", "blocking": "easy"},
    *({"name": name, "blocking": blocking} for name in ("sjf", "saf", "f1", "wfp3") for blocking in ("easy", "skip")),
    {"name": "reserve"},
    {"name": "reserve_slowdown"},
)
PREEMPTIVE: tuple[Spec, ...] = ({"name": "las", "blocking": "skip"}, {"name": "dlas", "blocking": "skip"})
PREEMPTIVE_TIMED: tuple[Spec, ...] = ({"name": "srtf", "blocking": "skip"},)
IN_PYTHON: tuple[Spec, ...] = (
    {"name": "predicted", "blocking": "skip"},
    {"name": "greedy"},
)
IN_PYTHON_WITH_TYPES: tuple[Spec, ...] = ({"name": "cheapest"}, {"name": "energy"})
_UPPER_BOUND = " It reads requested times, and this trace has none: the gain is what exact ones would bring."


def another_policy(study: Study) -> Idea:
    """Try strong heuristics with the present placement."""
    yield from _tried(study, TIMELESS, "policy")
    if study.traces[0].requested == "absent":
        yield LeftOut("policies that read requested times", "the trace is read without any")
    else:
        kind, remark = ("policy", "") if study.knows_times else ("policy with requested times", _UPPER_BOUND)
        yield from _tried(study, TIMED, kind, remark)
    if study.may_preempt:
        stops = f" It stops running jobs for others, at {study.setup.timing.preemption_cost:g} s each time."
        yield from _tried(study, PREEMPTIVE, "policy that preempts", stops)
        if study.knows_times:
            yield from _tried(study, PREEMPTIVE_TIMED, "policy that preempts", stops)
    else:
        yield LeftOut("policies that preempt", "--preemption-cost SECONDS says what one costs, and tries them")
    in_python = IN_PYTHON
    if len(study.setup.cluster.types) > 1:
        in_python += IN_PYTHON_WITH_TYPES
        if study.setup.cluster.rent_usd_per_hour is None:
            in_python = tuple(spec for spec in in_python if spec["name"] != "cheapest")
            yield LeftOut("cheapest", "the rent of some GPUs is not known (rent_usd_per_hour in the cluster's file)")
    if study.has_time:
        yield from _tried(study, in_python, "policy")
    else:
        names = ", ".join(str(spec["name"]) for spec in in_python)
        yield LeftOut(names, f"they decide in Python; --jobs {MOST_JOBS_IN_PYTHON} or fewer tries them")


def _tried(study: Study, specs: tuple[Spec, ...], kind: str, remark: str = "") -> Idea:
    present = study.policy
    for spec in specs:
        make = partial(_with_placement_of, present, spec)
        policy = make()
        if policy == present or not _runs(policy, study):
            continue
        words = policy_words(policy).partition(", placement")[0]
        text = f"Use {words} ({_summary(str(spec['name']))}).{remark}"
        title = f"{words}, exact times" if remark == _UPPER_BOUND else words
        yield Candidate(kind, title, text, "mean_jct", study.setup.with_policy(make))


def _with_placement_of(present: Policy, spec: Spec) -> Policy:
    policy = make_policy(spec)
    placement = getattr(present, "placement", None)
    return with_rules(policy, placement=placement) if placement and is_compiled(policy) else policy


def _runs(policy: Policy, study: Study) -> bool:
    try:
        check_requested_times(policy, study.traces[0])
    except LeptonError:
        return False
    return True


def _summary(name: str) -> str:
    if name.startswith("reserve"):
        return "small and short jobs first, and long ones leave GPUs free for short ones to come"
    return next(info.summary for info in policies() if info.name == name)
