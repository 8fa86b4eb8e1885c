"""Gavel's books: what each kind of job was due of each pool of GPUs, and what it has had."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np


class JobKind(NamedTuple):
    """Jobs that shares cannot tell apart."""

    gpus: float  # of one job
    rates: tuple[tuple[int, float], ...]  # (pool, seconds of service a second there); a pool is a set of types, as bits


Claim = tuple[JobKind, int]
"""A kind of job and one of its pools."""


class ShareLedger:
    """Adds up GPU-seconds due and received, by claim, while jobs wait."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.time = -np.inf
        self.due: dict[Claim, float] = defaultdict(float)
        self.received: dict[Claim, float] = defaultdict(float)
        self._targets: Mapping[Claim, float] = {}
        self._held: Mapping[Claim, float] = {}

    def advance(self, now: float, kinds: Iterable[JobKind]) -> None:
        """Book the time since the last decision; forget the kinds of which no job is left."""
        seconds = now - self.time
        for book, gpus in ((self.due, self._targets), (self.received, self._held)):
            for claim, count in gpus.items():
                book[claim] += count * seconds
        left = set(kinds)
        for book in (self.due, self.received):
            for claim in [claim for claim in book if claim[0] not in left]:
                del book[claim]
        self.time = now
        self.hold({}, {})

    def hold(self, targets: Mapping[Claim, float], held: Mapping[Claim, float]) -> None:
        """Say what is due and what is held, in GPUs, from now on."""
        self._targets, self._held = targets, held

    def rank(self, claim: Claim, target: float, would_hold: float, seconds: float) -> float:
        """Return what the claim will be due over what it will have received, if it holds that for so long from now."""
        return (self.due[claim] + target * seconds) / (self.received[claim] + would_hold * seconds)
