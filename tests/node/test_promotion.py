"""The result feedback on a node's own journal: promoted, and taken back when it does worse."""

import time
from pathlib import Path

from lepton_rl.agents import make_policy
from lepton_rl.agents.priority import HeapPriority
from lepton_rl.experiments.deploy import _weights, _with_weights
from lepton_rl.node.guard import Guard
from lepton_rl.node.jobs import JobRequest, JobState, RunEnd
from lepton_rl.node.journal import Journal
from lepton_rl.node.promotion import Promotion, Weighted
from lepton_rl.node.trial import Canary, of_canary
from tests.fake_nvml import FakeNvml
from tests.node.live import LiveNode

SHARE = 0.5


def ended(journal: Journal, jobs: int, wait: tuple[float, float], sensitivity: float = 1.0) -> None:
    """Jobs of 20 s that ended; the acting policy's waited the first time, the canary's the second."""
    for _ in range(jobs):
        now = time.time()
        request = JobRequest(argv=("true",), cwd="/", time_sensitivity=sensitivity, compute_intensity=1.0)
        job = journal.submit(request, now)
        start = now + wait[of_canary(job, SHARE)]
        run = journal.begin_run(job, ("GPU-x",), start, start, "boot")
        journal.run_started(job, run.run, start, (1, 1), (2, 2))
        journal.end_run(job, run.run, JobState.DONE, RunEnd(ended_time=start + 20.0, run_s=20.0), outcome="ended")


def test_a_better_canary_acts_and_gives_way_again(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> None:
    with LiveNode(tmp_path, four_gpus, fake_library) as node:
        fcfs = make_policy("fcfs")
        guard = Guard(Canary(fcfs, make_policy("saf"), SHARE, "saf"), fcfs, ("fcfs", "fcfs"))
        promotion = Promotion(node.cluster, guard)
        assert promotion.look(apply=True)["verdict"] == "keep"
        ended(node.journal, 240, wait=(40.0, 5.0))
        asked = promotion.look(apply=False)
        assert (asked["verdict"], asked["done"], guard.policy_name) == ("promote", False, "fcfs")
        assert promotion.look(apply=True)["done"]
        assert guard.policy_name == "saf"
        assert not isinstance(guard.policy, Canary)
        ended(node.journal, 100, wait=(400.0, 400.0))
        assert promotion.look(apply=True)["verdict"] == "roll_back"
        assert (guard.policy_name, type(guard.policy)) == ("fcfs", Canary)
        guard.close()


def test_weights_move_toward_the_jobs_that_are_slowed(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> None:
    with LiveNode(tmp_path, four_gpus, fake_library) as node:
        acting = make_policy("heap_priority")
        guard = Guard(acting, make_policy("fcfs"), ("heap_priority", "fcfs"))
        promotion = Promotion(node.cluster, guard, weighted=Weighted(_weights, _with_weights))
        ended(node.journal, 60, wait=(0.0, 0.0), sensitivity=1.0)
        ended(node.journal, 20, wait=(100.0, 100.0), sensitivity=9.0)
        assert promotion.look(apply=True)["done"]
        assert isinstance(acting, HeapPriority)
        assert isinstance(guard.policy, HeapPriority)
        assert guard.policy.time_weight > acting.time_weight
        assert guard.policy.compute_weight == acting.compute_weight  # all jobs have the same
        guard.close()


def test_a_promotion_outlives_the_daemon_until_other_policies_come(
    tmp_path: Path, four_gpus: FakeNvml, fake_library: Path
) -> None:
    def started(node: LiveNode, setting: str) -> tuple[Promotion, Guard]:
        fcfs = make_policy("fcfs")
        guard = Guard(Canary(fcfs, make_policy("saf"), SHARE, "saf"), fcfs, ("fcfs", "fcfs"))
        promotion = Promotion(node.cluster, guard, setting=setting)
        promotion.take_up()
        return promotion, guard

    with LiveNode(tmp_path, four_gpus, fake_library) as node:
        promotion, guard = started(node, "one")
        assert (promotion.in_force, guard.policy_name) == ("", "fcfs")
        ended(node.journal, 240, wait=(40.0, 5.0))
        assert promotion.look(apply=True)["done"]
        assert promotion.in_force.startswith("saf was promoted by the feedback at ")
        said = promotion.in_force
        guard.close()
        promotion, guard = started(node, "one")
        assert (guard.policy_name, promotion.in_force) == ("saf", said)
        guard.close()
        ended(node.journal, 100, wait=(400.0, 400.0))
        promotion, guard = started(node, "one")
        assert promotion.look(apply=True)["verdict"] == "roll_back"
        assert (guard.policy_name, promotion.in_force, node.journal.ledger.feedback()) == ("fcfs", "", None)
        guard.close()
        node.journal.ledger.keep_feedback("one", {"what": "promoted", "former": {}, "since": 0.0})
        promotion, guard = started(node, "two")
        assert (guard.policy_name, promotion.in_force, node.journal.ledger.feedback()) == ("fcfs", "", None)
        guard.close()


def test_weights_outlive_the_daemon(tmp_path: Path, four_gpus: FakeNvml, fake_library: Path) -> None:
    with LiveNode(tmp_path, four_gpus, fake_library) as node:
        weights = {"compute_intensity": 2.0, "time_sensitivity": 3.0, "gpu_memory": 0.5}
        node.journal.ledger.keep_feedback("one", {"what": "weights", "weights": weights, "since": 0.0})
        guard = Guard(make_policy("heap_priority"), make_policy("fcfs"), ("heap_priority", "fcfs"))
        promotion = Promotion(node.cluster, guard, weighted=Weighted(_weights, _with_weights), setting="one")
        promotion.take_up()
        assert _weights(guard.policy) == weights
        assert promotion.in_force.startswith("the weights of heap_priority were changed by the feedback")
        guard.close()
