"""The vector form is its single environments, stepped together."""

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from lepton_rl.envs import Codec, EnvironmentBatch, Episodes, Objective, SchedulingEnv, SchedulingVectorEnv
from lepton_rl.envs.codec import Observation
from lepton_rl.errors import ConfigError
from lepton_rl.workloads import Trace
from tests.envs.cases import CLUSTER, assert_same, workload

COUNT = 3


def traces(requested: bool = True) -> list[Trace]:
    return [workload(31, jobs=50, requested=requested), workload(32, jobs=80, requested=requested)]


def settings(features: str = "full", relative: bool = False, requested: bool = True) -> dict[str, Any]:
    return {
        "workload": traces(requested),
        "cluster": CLUSTER,
        "codec": Codec(8, "sjf", features),
        "objective": Objective(1.0, 2.0, 0.5, 0.1),
        "jobs": 15,
        "warmup": 5,
        "relative_to_heuristic": relative,
    }


def at(observation: Observation, env: int) -> Observation:
    return {name: array[env] for name, array in observation.items()}


def at_all(values: dict[str, Any]) -> dict[str, Any]:
    """What Gymnasium's arrays over environments hold for one with these infos: each name, and that it holds."""
    return values | {f"_{name}": True for name in values}


def valid_actions(masks: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.int64]:
    return np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])


@pytest.mark.parametrize("features", ["basic", "full"])
@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("requested", [False, True])
def test_it_equals_single_environments_step_by_step(features: str, relative: bool, requested: bool) -> None:
    arguments = settings(features, relative, requested)
    vector = SchedulingVectorEnv(COUNT, **arguments)
    singles = [SchedulingEnv(**arguments) for _ in range(COUNT)]
    rng = np.random.default_rng(0)
    observation, infos = vector.reset(seed=5)
    assert infos["time"].shape == infos["_time"].shape == (COUNT,)

    def reset(env: int) -> None:
        window = tuple(vector.batch.windows[env].tolist())
        single, _ = singles[env].reset(options={"window": window})
        assert_same(at(observation, env), single, "after a reset")

    for env in range(COUNT):
        reset(env)
    episodes = 0
    while episodes < 12:
        actions = valid_actions(vector.action_masks(), rng)
        observation, rewards, terminated, truncated, infos = vector.step(actions)
        assert not truncated.any()
        assert ("final_info" in infos) == terminated.any()
        for env, one in enumerate(singles):
            single, reward, ended, _, info = one.step(int(actions[env]))
            assert reward == rewards[env]
            assert ended == terminated[env]
            if ended:
                episodes += 1
                assert infos["_final_info"][env]
                assert infos["_final_obs"][env]
                assert at(infos["final_info"]["episode_metrics"], env) == at_all(info["episode_metrics"])
                assert infos["final_info"]["return"][env] == info["return"]
                assert_same(infos["final_obs"][env], single, "at the end")
                reset(env)
            else:
                assert_same(at(observation, env), single)
                assert infos["time"][env] == info["time"]
                assert infos["return"][env] == info["return"]
                assert not infos.get("_final_info", [False] * COUNT)[env]


def test_infos_are_formed_as_gymnasium_forms_them() -> None:
    """Gymnasium's own vector of single environments, on the same windows, returns the same infos."""
    arguments = settings() | {"workload": [workload(31, jobs=20)]}  # one window: nothing is left to chance
    ours = SchedulingVectorEnv(COUNT, **arguments)
    theirs = gymnasium.vector.SyncVectorEnv(
        [lambda: SchedulingEnv(**arguments)] * COUNT, autoreset_mode=AutoresetMode.SAME_STEP
    )
    assert_same_infos(ours.reset(seed=0)[1], theirs.reset(seed=0)[1])
    rng = np.random.default_rng(0)
    ends = 0
    while ends < 4:
        actions = valid_actions(ours.action_masks(), rng)
        left, right = ours.step(actions), theirs.step(actions)
        assert_same_infos(left[4], right[4])
        ends += int(left[2].sum())


def assert_same_infos(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        if isinstance(value, dict):
            assert_same_infos(value, right[name])
        elif value.dtype == object:
            for one, other in zip(value, right[name], strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    assert_same(one, other)
        else:
            assert value.tolist() == right[name].tolist(), name


def test_named_windows() -> None:
    vector = SchedulingVectorEnv(COUNT, **settings())
    vector.reset(options={"window": (1, 7)})
    assert vector.batch.windows.tolist() == [[1, 7]] * COUNT
    vector.reset(options={"window": [(0, 2), None, (1, 9)]}, seed=3)
    assert vector.batch.windows.tolist()[0::2] == [[0, 2], [1, 9]]


@pytest.mark.parametrize(
    ("settled", "said"),
    [
        ({"options": {"window": (2, 0)}}, "window"),
        ({"options": {"window": [(0, 2)]}}, "one pair or 3"),
        ({"options": {"reset_mask": [True]}}, "3 truth values"),
        ({"options": 3}, "mapping"),
        ({"seed": [1, 2]}, "one number or 3"),
        ({"seed": -1}, "from 0 on"),
    ],
)
def test_a_wrong_reset_is_told(settled: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SchedulingVectorEnv(COUNT, **settings()).reset(**settled)


@pytest.mark.parametrize(("mode", "kind"), [("ansi", str), ("rgb_array", np.ndarray), (None, None)])
def test_rendering_shows_every_environment(mode: str | None, kind: type | None) -> None:
    vector = SchedulingVectorEnv(COUNT, **settings(), render_mode=mode)
    vector.reset(seed=0)
    pictures = vector.render()
    if kind is None:
        assert pictures is None
    else:
        assert pictures is not None
        assert [type(picture) for picture in pictures] == [kind] * COUNT


def test_one_environment_does_not_see_the_others() -> None:
    """The same windows give the same episodes whatever stands beside them."""
    arguments = settings()
    episodes = Episodes(arguments["workload"], 15, 5)
    batches = [
        EnvironmentBatch(episodes, CLUSTER, arguments["codec"], arguments["objective"], count) for count in (1, 4)
    ]
    for env, window in ((0, (0, 7)), (1, (1, 3)), (2, (1, 60)), (3, (0, 0))):
        batches[1].reset(env, window)
    for env in (0, 1, 2, 3):
        first, last = batches[0], batches[1]
        first.reset(0, tuple(last.windows[env].tolist()))
        assert_same(first.observation_of(0), last.observation_of(env))
    rng = np.random.default_rng(1)
    batches[0].reset(0, (1, 60))
    while not batches[0].terminated[0]:
        actions = valid_actions(batches[0].masks, rng)
        batches[0].step(actions)
        others = np.full(4, 8)
        others[2] = actions[0]
        batches[1].step(others)
        assert_same(batches[0].observation_of(0), batches[1].observation_of(2))
        assert batches[0].rewards[0] == batches[1].rewards[2]


def test_the_same_seed_gives_the_same_run() -> None:
    def record(seed: int | list[int | None]) -> list[Any]:
        vector = SchedulingVectorEnv(COUNT, **settings())
        rng = np.random.default_rng(2)
        seen: list[Any] = [vector.reset(seed=seed)]
        seen += [vector.step(valid_actions(vector.action_masks(), rng))[:4] for _ in range(80)]
        return [*seen, vector.batch.windows.tolist()]

    assert repr(record(1)) == repr(record(1))
    assert repr(record([4, 5, 6])) == repr(record([4, 5, 6]))
    assert record(1)[-1] != record(2)[-1]


def test_a_seed_for_each_environment() -> None:
    vector = SchedulingVectorEnv(COUNT, **settings())
    vector.reset(seed=[7, 8, 7])
    windows = vector.batch.windows.tolist()
    assert windows[0] == windows[2] != windows[1]
    vector.reset(seed=[None, 8, None])
    assert vector.batch.windows.tolist()[1] == windows[1]


def test_a_reset_of_some() -> None:
    vector = SchedulingVectorEnv(COUNT, **settings())
    before, _ = vector.reset(seed=1)
    after, _ = vector.reset(options={"reset_mask": np.array([False, True, False])})
    for env in (0, 2):
        assert_same(at(before, env), at(after, env))


def test_a_reset_of_some_leaves_the_others_streams_alone() -> None:
    runs = []
    for seed in (1, 2):
        vector = SchedulingVectorEnv(COUNT, **settings())
        vector.reset(seed=9)
        vector.reset(seed=seed, options={"reset_mask": np.array([False, True, False])})
        vector.reset(options={"reset_mask": np.array([True, False, True])})
        runs.append(vector.batch.windows.tolist())
    assert runs[0][0::2] == runs[1][0::2]
    assert runs[0][1] != runs[1][1]


def test_every_environment_must_have_begun() -> None:
    vector = SchedulingVectorEnv(COUNT, **settings())
    vector.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(ResetNeeded, match="environment 1"):
        vector.step(np.zeros(COUNT, np.int64))


@pytest.mark.parametrize(
    "actions",
    [np.zeros(COUNT + 1, np.int64), np.zeros(COUNT - 1, np.int64), np.full(COUNT, 0.9), np.zeros((COUNT, 1), np.int64)],
    ids=["long", "short", "parts", "table"],
)
def test_actions_are_one_whole_number_for_each(actions: NDArray[Any]) -> None:
    vector = SchedulingVectorEnv(COUNT, **settings())
    vector.reset(seed=0)
    with pytest.raises(ConfigError, match="actions must be 3 whole numbers"):
        vector.step(actions)


def test_copies_and_views() -> None:
    for copy in (True, False):
        vector = SchedulingVectorEnv(COUNT, **settings(), copy=copy)
        rng = np.random.default_rng(3)
        observation, _ = vector.reset(seed=1)
        masks = vector.action_masks()
        kept = {name: array.copy() for name, array in observation.items()}
        for _ in range(5):
            vector.step(valid_actions(vector.action_masks(), rng))
        same = all(np.array_equal(kept[name], observation[name]) for name in kept)
        assert same == copy
        assert np.shares_memory(masks, vector.action_masks()) != copy
        assert observation["queue"].flags.writeable == copy
        assert np.shares_memory(observation["queue"], vector.batch.observation()["queue"]) != copy


def test_gymnasium_makes_it() -> None:
    vector = gymnasium.make_vec(
        "lepton_rl/Scheduling-v0",
        num_envs=COUNT,
        vectorization_mode="vector_entry_point",
        **settings(),
    )
    assert vector.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    observation, _ = vector.reset(seed=0)
    assert vector.observation_space.contains(observation)
    assert vector.action_space.shape == (COUNT,)
    for _ in range(60):
        observation, *_ = vector.step(vector.action_space.sample())
        assert vector.observation_space.contains(observation)
    vector.close()


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    arguments = settings()
    episodes = Episodes(arguments["workload"], 15, 5)

    def batch() -> EnvironmentBatch:
        return EnvironmentBatch(episodes, CLUSTER, arguments["codec"], arguments["objective"], 2, True)

    first = batch()
    first.reset(0, (0, 3))
    first.reset(1, (1, 40))
    rng = np.random.default_rng(4)
    for _ in range(8):
        first.step(valid_actions(first.masks, rng))
    saved = first.save_state()
    kept = {name: array.copy() for name, array in saved.items()}
    second = batch()
    second.reset(0, (1, 0))  # something else, to be overwritten
    second.reset(1, (0, 0))
    second.load_state(saved)
    for _ in range(10):
        assert_same(first.observation(), second.observation())
        actions = valid_actions(first.masks, rng)
        first.step(actions)
        second.step(actions)
        assert first.rewards.tolist() == second.rewards.tolist()
        assert first.terminated.tolist() == second.terminated.tolist()
        if first.terminated.any():
            break
    assert_same(first.observation(), second.observation())
    assert second.windows.tolist() == [[0, 3], [1, 40]]
    assert first.brief(0) == second.brief(0)
    for name, array in saved.items():  # a copy: neither run reaches it
        assert np.array_equal(array, kept[name], equal_nan=True), name


def test_the_size_of_the_state_is_bounded() -> None:
    # DESIGN: at most 60 MB for 64 environments of 128 visible jobs.
    rng = np.random.default_rng(5)
    trace = Trace.from_columns(
        {"submit_time": np.arange(1024), "run_time": rng.integers(1, 90, 1024), "gpus": [1] * 1024}
    )
    episodes = Episodes([trace], 1024)
    batch = EnvironmentBatch(episodes, CLUSTER, Codec(128), Objective(), 64)
    assert batch.state_bytes < 60e6


def test_a_state_of_other_environments_is_refused() -> None:
    arguments = settings()
    episodes = Episodes(arguments["workload"], 15, 5)
    two, three = (
        EnvironmentBatch(episodes, CLUSTER, arguments["codec"], arguments["objective"], count) for count in (2, 3)
    )
    part = two.save_state()
    part.pop("_shown")
    for state in (three.save_state(), part):
        with pytest.raises(ConfigError, match="other environments"):
            two.load_state(state)
