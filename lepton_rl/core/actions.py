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


Action = Start | Preempt
