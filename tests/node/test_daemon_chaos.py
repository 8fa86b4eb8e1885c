"""A daemon and supervisors are killed at random under a policy: nothing is lost, repeated, or run on a GPU in use."""

import random
from pathlib import Path

import pytest

from lepton_rl.node.jobs import JobState, RunRecord
from lepton_rl.node.journal import Journal
from lepton_rl.node.paths import JOURNAL
from tests.fake_nvml import FakeNvml
from tests.fake_nvml.control import VARIABLE
from tests.node.daemons import DaemonNode
from tests.node.soak import GPUS, overbooked, wreak, wrongs


def test_killed_daemons_and_supervisors_lose_and_repeat_nothing(
    tmp_path: Path, fake_library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")  # shown where the test fails
    with FakeNvml(tmp_path / "nvml-state", gpus=GPUS) as fake, DaemonNode(tmp_path, fake, fake_library) as node:
        monkeypatch.setenv(VARIABLE, str(fake.path))
        havoc = wreak(node, seed, kills=20, jobs=100)
        assert havoc.daemons >= 20
        assert len(havoc.acknowledged) >= 100
        with Journal(node.state / JOURNAL) as journal:
            assert journal.counts()[JobState.DONE] > 0
        assert wrongs(node, havoc) == []


def run(job: int, begin: float, end: float, milli: int = 1000, outcome: str = "ended") -> RunRecord:
    """Return a run on GPU a."""
    return RunRecord(
        job=job, run=1, gpu_uuids=("a",), gpu_milli=milli, decided_time=begin, starting_time=begin, boot_id="",
        ended_time=end, outcome=outcome,
    )  # fmt: skip


def test_an_overbooked_gpu_would_be_seen() -> None:
    assert overbooked([run(1, 0.0, 5.0), run(2, 5.0, 6.0)], {}) == []
    assert overbooked([run(1, 0.0, 5.0, 500), run(2, 3.0, 6.0, 500)], {}) == []
    assert overbooked([run(1, 0.0, 5.0), run(2, 4.0, 6.0, 500)], {}) == ["a is booked at 1.5 by job 2 at 4.0"]
    lost = run(1, 0.0, 2.0, outcome="lost")
    assert overbooked([lost, run(2, 3.0, 6.0)], {1: 2.5}) == []
    assert overbooked([lost, run(2, 3.0, 6.0)], {1: 3.5}) == ["a is booked at 2 by job 2 at 3.0"]
