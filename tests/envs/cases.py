"""Small workloads and agents for the tests of the environments."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core import ClusterSpec
from lepton_rl.envs import SchedulingEnv
from lepton_rl.envs.codec import Observation
from lepton_rl.workloads import Trace

CLUSTER = ClusterSpec(3, 4)
Choose = Callable[[NDArray[np.bool_]], int]


def workload(seed: int, jobs: int = 60, shares: bool = True, gap: int = 6, requested: bool = True) -> Trace:
    """Jobs for CLUSTER that queue; integer times, many of them equal; run times from 1 s."""
    rng = np.random.default_rng(seed)
    run = np.ceil(rng.lognormal(2.5, 1.2, jobs))
    sizes = [0.1, 0.25, 0.5, 0.7, 1, 1, 2, 3, 4, 8, 12] if shares else [1, 1, 2, 3, 4, 8, 12]
    columns: dict[str, Any] = {
        "submit_time": np.cumsum(rng.integers(0, gap, jobs)),
        "run_time": run,
        "gpus": rng.choice(sizes, jobs),
        "gpu_memory_gib": rng.choice([np.nan, 5.0, 20.5, 60.0], jobs),
        "user": rng.integers(0, 4, jobs),
    }
    if requested:
        columns["requested_time"] = np.ceil(run * rng.choice([0.5, 1.0, 1.0, 2.5], jobs))
    return Trace.from_columns(columns, origin=0.0, requested=None if requested else "absent")


def random_choice(seed: int) -> Choose:
    """A random valid action, waiting included."""
    rng = np.random.default_rng(seed)
    return lambda mask: int(rng.choice(np.flatnonzero(mask)))


def skip_choice(mask: NDArray[np.bool_]) -> int:
    """The first job of the window that fits; waiting only where none does."""
    return int(np.argmax(mask))


def head_choice(mask: NDArray[np.bool_]) -> int:
    """The first job of the window, or waiting for it."""
    return 0 if mask[0] else len(mask) - 1


def play(env: SchedulingEnv, choose: Choose, window: tuple[int, int] | None = None) -> float:
    """Play one episode; return the sum of what was paid, before the first decision included."""
    options = None if window is None else {"window": window}
    _, info = env.reset(seed=0, options=options)
    paid = float(info["return"])
    terminated = False
    while not terminated:
        _, reward, terminated, truncated, info = env.step(choose(env.action_masks()))
        paid += reward
        assert not truncated
    return paid


def assert_same(left: Observation, right: Observation, note: str = "") -> None:
    """Hold two observations to the same bits."""
    assert left.keys() == right.keys()
    for name in left:
        assert np.array_equal(left[name], right[name]), f"{note} {name}"
        assert left[name].dtype == right[name].dtype, name
