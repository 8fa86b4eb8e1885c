"""What an experiment file for training says."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from lepton_rl.agents.network import NetworkName
from lepton_rl.agents.sb3 import AlgorithmName
from lepton_rl.envs import Codec, Objective
from lepton_rl.envs.quantization import ObservationDtype
from lepton_rl.experiments.config import MOST_JOBS, ClusterConfig, RunName, WorkloadConfig
from lepton_rl.experiments.loader import Misplaced, Section, or_value_error
from lepton_rl.experiments.timing_config import TimingSection

Rate = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6)]
Pair = tuple[float, float]

# What each algorithm reads; the rest of AgentConfig must then be left out.
_ON_POLICY = ("n_steps", "gae_lambda", "entropy", "value_coefficient", "max_grad_norm")
_PPO = (*_ON_POLICY, "batch_size", "n_epochs", "clip_range", "target_kl")
_READS: dict[AlgorithmName, tuple[str, ...]] = {
    "maskable_ppo": _PPO,
    "ppo": _PPO,
    "a2c": _ON_POLICY,
    "dqn": (
        "batch_size",
        "max_grad_norm",
        "buffer_size",
        "learning_starts",
        "train_every",
        "gradient_steps",
        "target_update_every",
        "exploration_fraction",
        "exploration_final",
    ),
}
_MOST_ROLLOUT = 10_000_000  # steps: tens of gigabytes of observations
_N_STEPS = {"a2c": 5, "dqn": 1}  # SB3's defaults; PPO's is 2048
_SB3_NAMES = {
    "value_coefficient": "vf_coef",
    "train_every": "train_freq",
    "target_update_every": "target_update_interval",
    "exploration_final": "exploration_final_eps",
}


class EpisodeConfig(Section):
    """Length of an episode."""

    jobs: int = Field(256, ge=1, le=MOST_JOBS, description="counted jobs of an episode")
    warmup: int = Field(0, ge=0, le=MOST_JOBS, description="jobs before them that a heuristic runs")


class ObservationConfig(Section):
    """What the learner sees and chooses, and which GPUs its jobs get."""

    window: int = Field(64, ge=1, le=4096, description="visible jobs")
    key: Literal["fcfs", "sjf", "smallest", "saf"] = Field("saf", description="order of the window")
    features: Literal["full", "basic"] = Field("full", description="feature set")
    placement: Literal["first", "best", "worst", "consolidated"] = Field("first", description="GPUs of a started job")

    actions: Literal["order", "placement", "power", "preemptive"] = Field(
        "order",
        description="what is chosen: a job, or with it its group of nodes, or its GPUs' power limit; preemptive: its "
        "group, or a running job to preempt or move",
    )
    running: int = Field(32, ge=1, le=4096, description="running jobs that are shown and may be stopped (preemptive)")
    power_levels: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (1.0, 0.8, 0.6), min_length=1, max_length=64, description="limits to choose among, parts of the maximum power"
    )

    def build(self) -> Codec:
        """Return the codec."""
        return Codec(
            self.window, self.key, self.features, self.placement, self.actions, self.power_levels, running=self.running
        )

    @model_validator(mode="after")
    def _usable(self) -> Self:
        or_value_error(self.build)
        for name, actions in (("running", "preemptive"), ("power_levels", "power")):
            if self.actions != actions and getattr(self, name) != type(self).model_fields[name].default:
                raise Misplaced(f"read where observation.actions is {actions} alone; leave it out", [name])
        return self


class ObjectiveConfig(Section):
    """What is minimised, per job."""

    slowdown: Weight = Field(1.0, description="weight of the mean bounded slowdown")
    wait_hours: Weight = Field(2.5, description="weight of the mean wait in hours")
    jct_hours: Weight = Field(0.0, description="weight of the mean JCT in hours")
    energy_kwh: Weight = Field(0.0, description="weight of the energy per job in kWh")
    relative_to_heuristic: bool = Field(True, description="divide rewards by the heuristic's cost on the same jobs")

    def build(self) -> Objective:
        """Return the objective."""
        return Objective(self.slowdown, self.wait_hours, self.jct_hours, self.energy_kwh)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        or_value_error(self.build)
        return self


class TrainedObjectiveConfig(ObjectiveConfig):
    """What is minimised in training."""

    preferences: bool = Field(False, description="weigh the components anew in each episode, and show how")


class AgentConfig(Section):
    """Algorithm and network. Settings that are left out have the algorithm's own default."""

    algorithm: AlgorithmName = Field("maskable_ppo", description="SB3 algorithm")
    network: NetworkName = Field("deepsets", description="policy network")
    width: int = Field(32, ge=1, le=8192, description="units of the network shared by the jobs (deepsets)")
    critic_width: int = Field(64, ge=1, le=8192, description="units of the critic's layers, and of the mlp's")
    learning_rate: Rate | tuple[Rate, Rate] = Field((1e-3, 1e-4), description="step size, or its first and last value")
    gamma: float = Field(0.9997, gt=0, le=1, description="discount per decision; near 1, or jobs get parked")
    reward_scale: float = Field(10.0, gt=0, le=1e6, description="rewards are multiplied by it for the critic's sake")
    n_steps: int | None = Field(None, ge=1, le=1_000_000, description="steps of each environment in a rollout")
    batch_size: int | None = Field(None, ge=1, le=_MOST_ROLLOUT, description="minibatch")
    n_epochs: int | None = Field(None, ge=1, le=1000, description="passes over a rollout")
    gae_lambda: float | None = Field(None, ge=0, le=1, description="of generalised advantage estimation")
    clip_range: float | None = Field(None, gt=0, le=1e6, description="of PPO")
    target_kl: float | None = Field(None, gt=0, le=1e6, description="stop an update beyond this divergence")
    entropy: Weight | tuple[Weight, Weight] | None = Field(
        None, description="entropy coefficient, or its first and last value"
    )
    value_coefficient: Weight | None = Field(None, description="weight of the value loss")
    max_grad_norm: float | None = Field(None, gt=0, le=1e6, description="gradient clipping")
    buffer_size: int | None = Field(None, ge=1, le=100_000_000, description="replayed steps (dqn)")
    learning_starts: int | None = Field(None, ge=0, le=10**12, description="steps before the first update (dqn)")
    train_every: int | None = Field(
        None, ge=1, le=1_000_000, description="steps of each environment between updates (dqn)"
    )
    gradient_steps: int | None = Field(None, ge=1, le=1_000_000, description="updates each time (dqn)")
    target_update_every: int | None = Field(None, ge=1, le=10**12, description="steps between target updates (dqn)")
    exploration_fraction: float | None = Field(None, ge=0, le=1, description="part of training that explores (dqn)")
    exploration_final: float | None = Field(None, ge=0, le=1, description="exploration that stays (dqn)")

    @model_validator(mode="after")
    def _only_what_is_read(self) -> Self:
        known = {name for names in _READS.values() for name in names}
        unread = [name for name in sorted(known - set(_READS[self.algorithm])) if getattr(self, name) is not None]
        if unread:
            raise ValueError(
                f"{self.algorithm} does not read {', '.join(unread)}: leave that out, or begin the section anew "
                f"with 'agent={{algorithm: {self.algorithm}}}' on the command line"
            )
        return self

    @property
    def entropy_schedule(self) -> Pair | None:
        """First and last entropy coefficient, when it changes."""
        return self.entropy if isinstance(self.entropy, tuple) else None

    def algorithm_settings(self) -> dict[str, Any]:
        """Return SB3's keyword arguments."""
        settings: dict[str, Any] = {"learning_rate": self.learning_rate, "gamma": self.gamma}
        for name in _READS[self.algorithm]:
            value = getattr(self, name)
            if value is not None and name != "entropy":
                settings[_SB3_NAMES.get(name, name)] = value
        if self.algorithm == "dqn":
            settings.setdefault("buffer_size", 100_000)  # SB3's million of these observations would take gigabytes
        if self.entropy is not None:
            settings["ent_coef"] = self.entropy[0] if isinstance(self.entropy, tuple) else self.entropy
        return settings

    def network_settings(self) -> dict[str, Any]:
        """Return what the policy class takes."""
        return {"network": self.network, "width": self.width, "critic_width": self.critic_width}


class TrainingConfig(Section):
    """How long and where."""

    environments: int = Field(64, ge=1, le=16_384, description="environments stepped together")
    total_steps: int = Field(1_000_000, ge=1, le=10**12, description="environment steps in all")
    evaluate_every: int = Field(100_000, ge=1, description="steps between evaluations on held-out windows")
    checkpoint_every: int = Field(100_000, ge=1, description="steps between checkpoints")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="where torch computes")
    threads: int = Field(1, ge=1, le=1024, description="threads of torch; one is fastest on shared cores")
    observation_dtype: ObservationDtype = Field(
        "float32", description="how observations are stored and sent to the device"
    )
    rollout_on: Literal["host", "device"] = Field("host", description="where a rollout's observations lie (not dqn)")


class ValidationConfig(Section):
    """Held-out windows that choose the best weights; never those of a benchmark."""

    windows: int = Field(16, ge=1, le=16_384, description="windows")
    fraction: float = Field(0.2, ge=0.001, le=0.999, description="last part of the workload kept for them")
    workload: WorkloadConfig | None = Field(None, description="another workload to draw them from")
    objective: ObjectiveConfig | None = Field(
        None, description="what the best weights are chosen by, where it is not what is trained on"
    )


class TrainConfig(TimingSection):
    """One training."""

    name: RunName = Field(description="of the run folder")
    seed: int = Field(0, ge=0, description="root of all randomness")
    workload: WorkloadConfig
    cluster: ClusterConfig = ClusterConfig()
    episode: EpisodeConfig = EpisodeConfig()
    observation: ObservationConfig = ObservationConfig()
    objective: TrainedObjectiveConfig = TrainedObjectiveConfig()
    agent: AgentConfig = AgentConfig()
    training: TrainingConfig = TrainingConfig()
    validation: ValidationConfig = ValidationConfig()

    @model_validator(mode="after")
    def _costs_are_read(self) -> Self:
        costs = [name for name in TimingSection.model_fields if getattr(self, name) > 0]
        if costs and self.observation.actions != "preemptive":
            raise Misplaced("read where observation.actions is preemptive alone; leave it out", [costs[0]])
        return self

    @model_validator(mode="after")
    def _rollout_fits(self) -> Self:
        n_steps, environments = (
            self.agent.n_steps or _N_STEPS.get(self.agent.algorithm, 2048),
            self.training.environments,
        )
        if n_steps * environments > _MOST_ROLLOUT:
            raise ValueError(
                f"a rollout of agent.n_steps={n_steps} in training.environments={environments} is too large to be "
                f"held: together they make {_MOST_ROLLOUT:,} steps at most"
            )
        return self

    @model_validator(mode="after")
    def _has_rollouts(self) -> Self:
        if self.agent.algorithm == "dqn" and self.training.rollout_on == "device":
            raise ValueError("dqn has no rollouts: its replayed steps stay on the host; leave out training.rollout_on")
        return self

    @model_validator(mode="after")
    def _held_out(self) -> Self:
        ours, theirs = self.workload, self.validation.workload
        if theirs is None or theirs.seed is None:
            return self
        if (ours.generator, ours.seed) == (theirs.generator, theirs.seed):
            raise ValueError(
                f"validation.workload has workload's generator and seed ({ours.seed}): its jobs would be trained on"
            )
        return self
