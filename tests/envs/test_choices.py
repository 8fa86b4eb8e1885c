"""Actions that choose a type of GPU, or a power limit, beside the job."""

import warnings
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from lepton_rl.core import ClusterSpec, SetPowerLimit, Start
from lepton_rl.core.cluster import NodeGroup
from lepton_rl.core.hardware import gpu_type
from lepton_rl.core.hardware.dynamics import Dynamics, Fault, Faults
from lepton_rl.envs import Codec, Objective, SchedulingEnv, SchedulingVectorEnv
from lepton_rl.envs.decision import Decision
from lepton_rl.errors import ConfigError
from lepton_rl.simulator import Blocking, Order, Rule, SimulatedCluster, run_trace
from lepton_rl.workloads import Trace, gpu_cluster
from tests.envs.cases import CLUSTER, assert_same, play, random_choice, workload
from tests.envs.dynamic_cases import DynamicCase, dynamic_cases
from tests.envs.test_codec import walk_together
from tests.envs.test_detailed import MIXED, mixed_trace
from tests.envs.test_rewards import OBJECTIVES
from tests.simulator.cases import same_schedule

IDS = {
    "placement": "lepton_rl/SchedulingPlacement-v0",
    "power": "lepton_rl/SchedulingPower-v0",
    "preemptive": "lepton_rl/SchedulingPreemptive-v0",
}
V100, A100 = gpu_type("V100-SXM2-32GB"), gpu_type("A100-SXM4-80GB")


def variant(actions: str, window: int = 8, **arguments: Any) -> SchedulingEnv:
    return SchedulingEnv(mixed_trace(60), MIXED, Codec(window, actions=actions), jobs=20, **arguments)


@pytest.mark.parametrize("actions", ["placement", "power"])
@settings(max_examples=40)
@given(case=dynamic_cases(), window=st.sampled_from([1, 3, 20]), seed=st.integers(0, 9))
def test_the_same_bits_for_the_environment_and_deployment(
    case: DynamicCase, actions: str, window: int, seed: int
) -> None:
    walk_together(case.trace, case.cluster, Codec(window, actions=actions), seed)


@pytest.mark.parametrize("actions", ["placement", "power"])
@pytest.mark.parametrize("name", OBJECTIVES)
@settings(max_examples=20)
@given(case=dynamic_cases(), seed=st.integers(0, 5))
def test_return_is_minus_the_cost(case: DynamicCase, actions: str, name: str, seed: int) -> None:
    objective = OBJECTIVES[name]
    env = SchedulingEnv(case.trace, case.cluster, Codec(4, actions=actions), objective, jobs=len(case.trace))
    paid = play(env, random_choice(seed))
    assert paid == pytest.approx(-objective.cost(env.outcome()), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("actions", ["placement", "power"])
def test_the_first_choice_is_what_an_order_alone_does(actions: str) -> None:
    trace = mixed_trace(60)
    env = SchedulingEnv(trace, MIXED, Codec(60, "sjf", actions=actions), jobs=60)
    play(env, lambda mask: int(np.argmax(mask)))
    assert same_schedule(env.outcome(), run_trace(trace, MIXED, Rule(Order.SJF, Blocking.SKIP)))


@settings(max_examples=60)
@given(case=dynamic_cases(), seed=st.integers(0, 9))
def test_the_mask_says_in_which_group_a_job_fits(case: DynamicCase, seed: int) -> None:
    groups = case.cluster.groups
    first = np.cumsum([0, *(group.gpus for group in groups)])
    codec = Codec(4, actions="placement")
    choose = random_choice(seed)
    simulated = SimulatedCluster(case.trace, case.cluster)
    while simulated.advance():
        decision = Decision.of(codec, simulated.snapshot())
        while True:
            snapshot = simulated.snapshot()
            mask = decision.observation["action_mask"].astype(bool)
            assert len(mask) == 4 * (1 + len(groups)) + 1
            plain = Decision.of(Codec(4), snapshot).observation["action_mask"].astype(bool)
            assert mask[:-1].reshape(4, -1)[:, 0].tolist() == plain[:-1].tolist()
            assert mask[-1] == plain[-1]
            choice = choose(mask) if mask.any() else decision.wait_action
            if choice == decision.wait_action:
                break
            for action in decision.act(choice):
                simulated.apply(action)
                assert isinstance(action, Start)
                group = choice % (1 + len(groups))
                assert group == 0 or all(first[group - 1] <= gpu < first[group] for gpu in action.gpus or ())


def test_types_by_hand() -> None:
    # Two V100 and two A100; three free slots of one GPU and one job for V100 alone.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 2, V100), NodeGroup(1, 2, A100)))
    trace = Trace.from_columns(
        {
            "submit_time": [0, 0, 0],
            "run_time": [90, 90, 90],
            "gpus": [3, 1, 1],
            "gpu_type": ["", "V100-SXM2-32GB", ""],
        },
        origin=0.0,
    )
    env = SchedulingEnv(trace, cluster, Codec(4, "fcfs", actions="placement"), jobs=3)
    observation, _ = env.reset()
    assert observation["action_mask"].tolist() == [1, 0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0]
    env.step(8)  # the last job on an A100
    assert env.batch.view(0).gpu_load.tolist() == [0, 0, 1, 0]
    assert env.action_masks().tolist() == [True, False, False, True, True, False, *[False] * 6, True]
    _, _, _, _, info = env.step(5)  # the V100's job on an A100: invalid, so it waits
    assert info["invalid_actions"] == 1
    assert info["time"] > 0


def test_power_levels_by_hand() -> None:
    # A job that runs under 60 % of the maximum power is slower; its GPU stays limited until a job sets another limit.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, V100),))
    trace = Trace.from_columns({"submit_time": [0, 1], "run_time": [100, 100], "gpus": [1, 1]}, origin=0.0)
    env = SchedulingEnv(trace, cluster, Codec(2, "fcfs", actions="power"), jobs=2)
    env.reset()
    observation = env.step(2)[0]
    limited = V100.under_limit(0.6 * V100.max_power_w)
    slower = limited.speed["general"] / V100.speed["general"]
    assert slower < 1
    assert observation["power"][0] == pytest.approx(V100.idle_power_w / V100.max_power_w)
    env.step(0)
    assert env.outcome().finish.tolist() == pytest.approx([100 / slower, 100 / slower + 100], rel=1e-6)


def test_levels_stay_in_the_cards_range_and_below_the_groups_limit() -> None:
    lowest = V100.min_power_limit_w / V100.max_power_w
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, V100, power_limit_w=200.0), NodeGroup(1, 1, V100)))
    trace = Trace.from_columns({"submit_time": [0, 0], "run_time": [9, 9], "gpus": [1, 1]})
    codec = Codec(2, "fcfs", actions="power", power_levels=(1.0, 0.9, lowest / 2))
    simulated = SimulatedCluster(trace, cluster)
    simulated.advance()

    def limits(choice: int) -> list[float]:
        decision = Decision.of(codec, simulated.snapshot())
        actions = [*decision.act(choice), *decision.act(choice)]
        return [action.watts or 0.0 for action in actions if isinstance(action, SetPowerLimit)]

    assert limits(0) == []  # they are so limited already
    assert limits(1) == pytest.approx([0.9 * V100.max_power_w])  # the first one stays at its group's 200 W
    assert limits(2) == pytest.approx([V100.min_power_limit_w] * 2)


def test_a_struck_job_is_free_to_go_elsewhere() -> None:
    # Job 0 is sent to the A100, which fails: it may start on the V100 then.
    cluster = ClusterSpec.of_groups((NodeGroup(1, 1, V100), NodeGroup(1, 1, A100)))
    faults = Faults(schedule=(Fault(10.0, 1, 1, True), Fault(500.0, 1, 1, False)))
    trace = Trace.from_columns({"submit_time": [0, 5], "run_time": [90, 300], "gpus": [1, 1]}, origin=0.0)
    env = SchedulingEnv(
        trace, cluster.with_dynamics(Dynamics(faults=faults)), Codec(2, "fcfs", actions="placement"), jobs=2
    )
    env.reset()
    env.step(2)
    _, _, _, _, info = env.step(6)  # waits at 5 s with job 1
    assert info["time"] == 10.0
    assert env.action_masks().tolist() == [True, True, False, True, True, False, False]


@pytest.mark.parametrize("actions", ["placement", "power", "preemptive"])
def test_the_vector_form_is_the_single_one(actions: str) -> None:
    codec = Codec(8, "sjf", actions=actions)
    envs = SchedulingVectorEnv(3, mixed_trace(40), MIXED, codec, jobs=40)
    singles = [SchedulingEnv(mixed_trace(40), MIXED, codec, jobs=40) for _ in range(3)]
    observations, _ = envs.reset(seed=0)
    for single in singles:
        single.reset(seed=0)
    rng = np.random.default_rng(3)
    for _ in range(60):
        actions_now = np.array([rng.choice(np.flatnonzero(mask)) for mask in envs.action_masks()])
        actions_now[0] = rng.integers(-2, envs.action_masks().shape[1] + 2)  # invalid ones, too
        observations, rewards, ended, _, infos = envs.step(actions_now)
        for env, single in enumerate(singles):
            observation, reward, over, _, info = single.step(int(actions_now[env]))
            assert rewards[env] == reward
            assert ended[env] == over
            if over:
                observation, info = single.reset(options={"window": (0, 0)})
            assert_same({name: array[env] for name, array in observations.items()}, observation)
            assert infos["invalid_actions"][env] == info["invalid_actions"]
    assert infos["invalid_actions"][0] > 0


@pytest.mark.parametrize("actions", ["placement", "power", "preemptive"])
def test_checkers(actions: str) -> None:
    env = gymnasium.make(IDS[actions], codec=Codec(8), jobs=20)
    assert env.unwrapped.codec.actions == actions  # type: ignore[attr-defined]
    check_env(env.unwrapped)
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        checker.check_env(variant(actions))
    tables = ["queue", "running"] if actions == "preemptive" else ["queue"]
    said = [str(warning.message) for warning in caught]
    assert [
        f"Your observation {name} has an unconventional shape" in text for name, text in zip(tables, said, strict=True)
    ]


@pytest.mark.parametrize("actions", ["placement", "power", "preemptive"])
def test_gymnasium_makes_the_vector_form(actions: str) -> None:
    envs = gymnasium.make_vec(IDS[actions], num_envs=2, vectorization_mode="vector_entry_point", jobs=20)
    observation, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)
    expected = {"placement": 64 * 4, "power": 64 * 3, "preemptive": (64 + 32) * 4}
    assert observation["action_mask"].shape == (2, expected[actions] + 1)
    envs.step(envs.action_space.sample())
    envs.close()


@pytest.mark.parametrize("mode", ["ansi", "rgb_array"])
def test_pictures(mode: str) -> None:
    env = variant("placement", render_mode=mode)
    env.reset(seed=0)
    env.step(int(env.action_masks().argmax()))
    assert env.render() is not None


def test_a_saved_state_keeps_the_choices() -> None:
    batch = variant("placement").batch
    batch.reset(0, (0, 0))
    saved = batch.save_state()
    mask = batch.masks.copy()
    batch.step(mask.argmax(axis=1))
    batch.load_state(saved)
    assert np.array_equal(batch.masks, mask)


@pytest.mark.parametrize("actions", ["placement", "power", "preemptive"])
def test_gpus_without_a_type_are_refused(actions: str) -> None:
    with pytest.raises(ConfigError, match=f"actions '{actions}' need groups of nodes, .* give the cluster as groups"):
        SchedulingEnv(workload(1), CLUSTER, Codec(4, actions=actions), jobs=5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"actions": "powr"}, "actions 'powr' is unknown; did you mean 'power'"),
        ({"actions": "placement", "placement": "consolidated"}, "use first, best or worst as placement"),
        ({"power_levels": ()}, r"power_levels must be parts .*, not \[\]"),
        ({"power_levels": (1.0, 1.2)}, "power_levels must be parts of the maximum power"),
        ({"power_levels": (1.0, 1.0)}, "power_levels must differ"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Codec(**arguments)


# Preferences.

MIX = Objective(1.0, 2.0, 0.0, 3.0)


@pytest.mark.parametrize("relative", [False, True])
def test_the_return_is_minus_the_cost_under_the_preferences(relative: bool) -> None:
    env = SchedulingEnv(
        mixed_trace(60), MIXED, Codec(8), MIX, jobs=40, warmup=10, preferences=True, relative_to_heuristic=relative
    )
    seen = []
    for seed in range(4):
        observation, info = env.reset(seed=seed)
        parts = observation["preferences"]
        assert parts.shape == (3,)
        assert parts.sum() == pytest.approx(1.0)
        seen.append(parts.tolist())
        paid, over, choose = info["return"], False, random_choice(seed)
        while not over:
            _, reward, over, _, _ = env.step(choose(env.action_masks()))
            paid += reward
        weights = [1.0 * 3 * parts[0], 2.0 * 3 * parts[1], 0.0, 3.0 * 3 * parts[2]]
        objective = Objective(*map(float, weights))
        cost = objective.cost(env.outcome(), 10)
        index, first = env.batch.windows[0].tolist()
        scale = 1.0
        if relative:
            heuristic = run_trace(mixed_trace(60).window(first, 50), MIXED, Rule(Order.SAF))
            scale = objective.cost(heuristic, 10)
        assert index == 0
        assert paid == pytest.approx(-cost / scale, rel=1e-6)
    assert len({tuple(parts) for parts in seen}) == 4


def test_named_preferences() -> None:
    arguments: dict[str, Any] = {"objective": MIX, "jobs": 20, "preferences": True}
    env = SchedulingEnv(mixed_trace(60), MIXED, Codec(8), **arguments)
    observation, _ = env.reset(options={"preferences": [1, 0, 3]})
    assert observation["preferences"].tolist() == [0.25, 0.0, 0.75]
    assert env.batch.objective_of(0) == Objective(0.75, 0.0, 0.0, 6.75)
    envs = SchedulingVectorEnv(3, mixed_trace(60), MIXED, Codec(8), **arguments)
    assert len(np.unique(envs.reset(seed=0)[0]["preferences"], axis=0)) == 3
    assert envs.reset(options={"preferences": [1, 1, 2]})[0]["preferences"].tolist() == [[0.25, 0.25, 0.5]] * 3
    made = gymnasium.make("lepton_rl/Scheduling-v0", workload=mixed_trace(60), cluster=MIXED, **arguments)
    check_env(made.unwrapped)
    for wrong in ([1, 2], [0, 0, 0], [1, -1, 1], "abc", [1, np.nan, 1]):
        with pytest.raises(ConfigError, match="preferences must be 3 numbers of 0 or more"):
            env.reset(options={"preferences": wrong})
    with pytest.raises(ConfigError, match="has no preferences; make it with preferences=True"):
        variant("order").reset(options={"preferences": [1, 1, 1]})


def test_equal_preferences_leave_the_objective_as_it_is() -> None:
    trace = gpu_cluster(n_jobs=60, gpus=MIXED.gpus, load=1.2, seed=4)
    plain = SchedulingEnv(trace, MIXED, Codec(8), MIX, jobs=60)
    asked = SchedulingEnv(trace, MIXED, Codec(8), MIX, jobs=60, preferences=True)
    asked.reset(options={"preferences": [1, 1, 1]})
    plain.reset()
    over = False
    while not over:
        action = int(plain.action_masks().argmax())
        reward, over = plain.step(action)[1:3]
        assert asked.step(action)[1] == pytest.approx(reward, rel=1e-6)
