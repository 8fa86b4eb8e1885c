"""What a policy makes of each waiting job, in one number, for people who ask why theirs waits."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lepton_rl.agents.bundle import LearnedPolicy
from lepton_rl.agents.compiled import RulePolicy
from lepton_rl.agents.network import forward
from lepton_rl.agents.predicted import Predicted
from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Floats
from lepton_rl.core.placement import Placement
from lepton_rl.core.policy import Policy
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.envs.decision import Decision
from lepton_rl.simulator.rules import Rule, Timing
from lepton_rl.simulator.scores import Order, score

_MEANING = {
    Order.FCFS: "the time of submission",
    Order.SJF: "the requested time, seconds",
    Order.LJF: "minus the requested time, seconds",
    Order.SMALLEST: "its GPUs",
    Order.SAF: "requested time x GPUs, GPU-seconds",
    Order.WEIGHTED: "minus its weighted priority",
    Order.SRTF: "the predicted time left, seconds",
    Order.LAS: "the GPU-seconds that it has had",
    Order.DLAS: "its queue by the GPU-seconds that it has had",
    Order.EDF: "its deadline",
    Order.LLF: "the time to its deadline beyond what is left of it",
    Order.RANDOM: "drawn by its number",
}


@dataclass(frozen=True)
class Scores:
    """Scores of the waiting jobs.

    Attributes:
        values: (waiting,), in the order of the snapshot's queue; the lowest goes first, ties by submission; infinite
            for a job that the policy does not look at yet.
        meaning: what the number is, in words.
    """

    values: Floats
    meaning: str


def scores_of(policy: Policy, snapshot: Snapshot) -> Scores | None:
    """Return what a policy makes of the waiting jobs; None for one that weighs them together, as a plan."""
    if isinstance(policy, LearnedPolicy):
        return _of_network(policy, snapshot)
    if isinstance(policy, Predicted):
        jobs = snapshot.jobs.copy()
        jobs[:, L.REQUESTED] = policy.predictions(jobs)
        return _of_order(Order[policy.score.upper()], (), jobs, snapshot, " as predicted")
    if isinstance(policy, RulePolicy):
        return _of_order(policy.order, policy.weights, snapshot.jobs, snapshot)
    own: Callable[[Snapshot], Floats] | None = getattr(policy, "scores", None)
    if own is not None:
        values = np.asarray(own(snapshot), np.float64)[snapshot.running_count :]
        return Scores(values, "the policy's own score")
    order = getattr(policy, "order", None)
    if isinstance(order, str) and order.upper() in Order.__members__:
        return _of_order(Order[order.upper()], (), snapshot.jobs, snapshot)
    return None


def _of_order(order: Order, weights: tuple[float, ...], jobs: Floats, snapshot: Snapshot, how: str = "") -> Scores:
    timing = Timing(snapshot.restart_cost, snapshot.quantum)
    _, settings = Rule(order, placement=Placement.FIRST, weights=weights).arrays(False, timing)
    rows = range(snapshot.running_count, len(jobs))
    values = np.array([score(int(order), settings, jobs, row, snapshot.time) for row in rows])
    meaning = _MEANING.get(order, f"the formula of {order.name.lower()}")
    return Scores(values, meaning + how)


def _of_network(policy: LearnedPolicy, snapshot: Snapshot) -> Scores | None:
    """One minus the probability with which the network would start each job next; of those that it sees."""
    if policy.codec.actions != "order":
        return None
    parts = getattr(policy, "_parts", None)
    decision = Decision(policy.codec, snapshot.cluster, 2 * len(snapshot.jobs), parts).show(snapshot)
    compute = forward(policy.network, policy.weights, tuple(policy.codec.shapes(policy.cluster)))
    seen = decision.observation if policy.quantization is None else policy.quantization.rounded(decision.observation)
    logits = compute(seen).astype(np.float64)
    odds = np.exp(logits - logits.max())
    chance = dict(zip(decision.visible.tolist(), (odds / odds.sum()).tolist(), strict=False))
    values = np.array([1.0 - chance[job] if job in chance else np.inf for job in snapshot.queue.id.tolist()])
    return Scores(values, "1 minus the probability with which the network starts it next")
