"""What a policy may ask of a cluster. Actions are applied in sequence."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Start:
    """Start a waiting job on these GPUs; without GPUs the cluster's own placement chooses them."""

    job: int
    gpus: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Preempt:
    """Stop a running job; it waits again and keeps its progress."""

    job: int


@dataclass(frozen=True, slots=True)
class Migrate:
    """Move a running job to these GPUs, which may be some of its own; without GPUs the placement chooses.

    It keeps its progress and owes the cost of a migration.
    """

    job: int
    gpus: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class SetPowerLimit:
    """Limit the draw of a GPU from now on, watts; None takes the limit back to what the cluster began with."""

    gpu: int
    watts: float | None = None


Action = Start | Preempt | Migrate | SetPowerLimit
