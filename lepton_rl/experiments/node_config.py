"""The file of a node: who decides, within which bounds, and what jobs may take."""

import resource
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lepton_rl.errors import nearest
from lepton_rl.experiments.loader import InputPath, Section
from lepton_rl.node.paths import LAUNCHER_SOCKET, SHARED_SOCKET

Positive = Annotated[float, Field(gt=0, le=1e9)]
NotNegative = Annotated[float, Field(ge=0, le=1e9)]
Name = str | int


def _octal(value: object) -> object:
    """YAML takes 0o077 for a text."""
    octal = isinstance(value, str) and value.startswith("0o") and set(value[2:]) <= set("01234567") and value != "0o"
    return int(str(value), 8) if octal else value


def _known_limits(limits: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """Refuse what no job could be given: every one of them would fail for it."""
    for name, (soft, hard) in limits.items():
        if name not in _RLIMITS:
            raise ValueError(f"there is no limit {name!r} on this system{nearest(name, _RLIMITS)}")
        if min(soft, hard) < _NONE or (hard != _NONE and not 0 <= soft <= hard):
            wanted = "[soft, hard], soft no more than hard and -1 for none"
            raise ValueError(f"{name}: write it as {wanted}, not [{soft}, {hard}]")
    return limits


_NONE = resource.RLIM_INFINITY
_RLIMITS = tuple(name for name in dir(resource) if name.startswith("RLIMIT_"))
Umask = Annotated[int, BeforeValidator(_octal), Field(ge=0, le=0o777)]
PolicySpec = str | dict[str, Any]


class JobsConfig(Section):
    """What holds for all jobs."""

    default_time_s: Positive = Field(86_400.0, description="what a job without requested time counts as asking for")
    time_limit: Literal["none", "requested"] = Field(
        "none", description="requested: a job is ended when it has run for longer than its --time"
    )
    placement: Literal["first", "best", "worst"] = Field("first", description="GPUs of a job that the policy starts")
    restart_cost_s: NotNegative = Field(60.0, description="what policies are told that a preemption costs")
    quantum_s: NotNegative = Field(0.0, description="a run is not preempted before it is this old")
    log_megabytes: float = Field(64.0, ge=0, le=1e6, description="of each of stdout and stderr; 0 is no limit")
    umask: Umask = Field(0o022, description="of the files of jobs that are submitted without one, as 0o077")
    rlimits: Annotated[dict[str, tuple[int, int]], AfterValidator(_known_limits)] = Field(
        default_factory=dict, description="RLIMIT_NAME: [soft, hard], -1 is none"
    )
    mps_pipe_directory: str | None = Field(None, description="where NVIDIA's MPS has its pipes, as /tmp/nvidia-mps")


class GuardConfig(Section):
    """What the policy is allowed."""

    budget_s: Positive = Field(0.5, description="seconds that one decision may take")
    first_budget_s: Positive = Field(60.0, description="the first one, which loads and compiles")
    actions_per_minute: int = Field(30, ge=0, le=100_000, description="preemptions, moves and power limits")
    starving_factor: float = Field(10.0, ge=1, le=1e6, description="times the median wait after which a job goes ahead")
    starving_floor_s: Positive = Field(3600.0, description="and at least so long")


class DevicesConfig(Section):
    """How the GPUs are reached."""

    library_path: InputPath | None = Field(None, description="libnvidia-ml.so.1, where it lies elsewhere")
    recording: InputPath | None = Field(None, description="play recorded readings instead of a driver")


class PowerConfig(Section):
    """Whether a policy's power limits are set."""

    mode: Literal["off", "dry_run", "live"] = Field(
        "dry_run", description="off refuses them, dry_run writes to the log what would be set, live sets leases"
    )
    helper: str | None = Field(None, description="socket of the power helper; the daemon itself sets them if left out")
    lease_s: float = Field(60.0, ge=5, le=86_400, description="seconds without a renewal after which they are undone")


class ThroughputConfig(Section):
    """What a GPU must compute before it takes work."""

    least_tflops: NotNegative = Field(description="TFLOP/s that the command must print")
    command: tuple[str, ...] | None = Field(
        None, min_length=1, description="prints one number; matrix products in torch if left out"
    )
    limit_s: Positive = Field(120.0, description="seconds after which the command has failed")


class AcceptanceConfig(Section):
    """What a GPU must show before it takes work, beside its memory, power range and errors."""

    throughput: ThroughputConfig | None = Field(None, description="a short run on that GPU alone; none if left out")


class FeedbackConfig(Section):
    """Bounds of what results may change."""

    every_s: Annotated[float, Field(ge=10, le=1e7)] | None = Field(
        None, description="look at results so often and act on them; only `node feedback` does if left out"
    )
    least_jobs: int = Field(50, ge=10, le=1_000_000, description="of each policy, before anything is concluded")
    least_gain: float = Field(0.05, ge=0, lt=1, description="by which a canary's slowdown must be lower, for sure")
    most_loss: float = Field(0.10, ge=0, le=10, description="by which a promoted one's may be higher, before it goes")
    most_fallbacks: float = Field(0.05, ge=0, le=1, description="share of decisions beyond which a policy is unfit")
    least_success: float = Field(0.95, ge=0, le=1, description="part of the success rate that must be kept")
    step: float = Field(0.1, gt=0, lt=1, description="of one change of a weight")
    lowest_weight: float = Field(0.01, ge=0, le=1e6, description="of a weighted priority")
    highest_weight: float = Field(10.0, gt=0, le=1e6, description="the same")


Days = Annotated[float, Field(gt=0, le=1e6)] | None


class RetentionConfig(Section):
    """How long ended jobs are kept, days since their end; null is for ever."""

    journal_days: Days = Field(90.0, description="what the journal has of them; what they used stays, by user and day")
    logs_days: Days = Field(30.0, description="the folders of their runs: logs, exit codes of each run")

    @model_validator(mode="after")
    def _no_folder_without_a_row(self) -> Self:
        if self.journal_days is not None and (self.logs_days is None or self.logs_days > self.journal_days):
            raise ValueError(
                f"logs_days: files of jobs are kept for as long as the journal has the jobs ({self.journal_days:g} "
                "days) and no longer; make journal_days longer or logs_days shorter"
            )
        return self


class HttpConfig(Section):
    """Whether and how the node can be reached by HTTP."""

    listen: str | None = Field(None, description="address and port, as 127.0.0.1:8265; off if left out")
    certificate: InputPath | None = Field(None, description="TLS certificate with its chain, PEM")
    key: InputPath | None = Field(None, description="its private key, PEM")
    hosts: tuple[str, ...] = Field(
        (), description="names and addresses by which clients call, beside the one of `listen`"
    )
    metrics_open: bool = Field(False, description="/metrics can be read without a token")
    dcgm_names: bool = Field(False, description="/metrics also under dcgm-exporter's names; not beside that exporter")
    requests_per_second: float = Field(20.0, gt=0, le=1e6, description="of one token; ten times that of one address")


class SharedConfig(Section):
    """A node of several users. Users and groups are named, or given by number."""

    account: Name = Field("lepton", description="the daemon's own user, with a group of its own; jobs never run as it")
    group: Name = Field("lepton-users", description="whose members may call")
    operators_group: Name | None = Field(None, description="whose members are operators")
    socket: str = Field(str(SHARED_SOCKET), description="where the daemon listens, in a folder that users can enter")
    launcher: str = Field(str(LAUNCHER_SOCKET), description="where the launcher listens, in a folder of root's")
    min_uid: int = Field(1000, ge=1, le=2**31, description="below are accounts of the system, which run no jobs")
    also: tuple[Name, ...] = Field((), description="users below it who do")
    root_jobs: bool = Field(False, description="jobs that root submits run, as root")
    without_account: bool = Field(False, description="numbers without an account run jobs, in a group of that number")


class AlertsConfig(Section):
    """When operators are told."""

    idle_power_w: Positive = Field(150.0, description="a GPU that no job holds draws more")
    idle_power_s: NotNegative = Field(120.0, description="for so long")
    hot_c: Positive = Field(75.0, description="a GPU is at least so hot")
    rise_c_per_min: Positive = Field(20.0, description="and gets hotter faster than this")
    rise_window_s: Positive = Field(30.0, description="measured over so long")
    throttling_s: NotNegative = Field(30.0, description="a GPU lowers its clocks for its temperature for so long")
    failed_jobs: int = Field(5, ge=1, le=100_000, description="so many")
    of_jobs: int = Field(10, ge=1, le=100_000, description="of the last jobs have failed or are lost")
    fallbacks: int = Field(10, ge=1, le=100_000, description="so many")
    of_decisions: int = Field(50, ge=1, le=100_000, description="of the last decisions were the fallback's")


class NodeConfig(Section):
    """One node."""

    mode: Literal["personal", "shared"] = Field("personal", description="jobs of the daemon's user, or of several")
    shared: SharedConfig = Field(default_factory=SharedConfig)
    policy: PolicySpec = Field("saf", description="name, mapping with settings, or path of a bundle")
    fallback: PolicySpec = Field(
        default_factory=lambda: {"name": "fcfs", "blocking": "easy"}, description="decides on any doubt"
    )
    state_dir: str | None = Field(None, description="journal, socket and files of jobs; ~/.local/state/... if left out")
    operators: tuple[Name, ...] = Field((), description="users who may drain, reserve and stop, beside the owner")
    jobs: JobsConfig = Field(default_factory=JobsConfig)
    guard: GuardConfig = Field(default_factory=GuardConfig)
    power: PowerConfig = Field(default_factory=PowerConfig)
    acceptance: AcceptanceConfig = Field(default_factory=AcceptanceConfig)
    feedback: FeedbackConfig = Field(default_factory=FeedbackConfig)
    devices: DevicesConfig = Field(default_factory=DevicesConfig)
    http: HttpConfig = Field(default_factory=HttpConfig)
    alerts: AlertsConfig = Field(default_factory=AlertsConfig)
    retention: RetentionConfig = Field(default_factory=RetentionConfig)
    hpc_job_mapping_dir: str | None = Field(None, description="folder in which dcgm-exporter finds the jobs of GPUs")
    price_usd_per_kwh: float | None = Field(None, ge=0, le=1e6, description="for the cost in `node usage`")
    base: Path | None = Field(None, description="folder that a policy's path starts from", exclude=True)
