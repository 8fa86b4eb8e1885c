"""Shares of a cluster whose GPUs differ, by linear programs (Narayanan et al., Gavel, OSDI 2020, sections 3 and 4).

A share x is the fraction of time for which each job of a kind runs in a pool; a pool is a type of GPU, or several
types for gangs that no single type can hold. A job runs in one pool at a time, so that its shares sum to at most 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lepton_rl.agents.linear_program import NoOptimum, Solution, maximise
from lepton_rl.core.arrays import Floats
from lepton_rl.errors import ConfigError

Bools = NDArray[np.bool_]

_SLACK = 1e-6
"""By what a later program may fall short of an earlier optimum: exact equality is infeasible in floating point."""
_NOTHING = 1e-4
"""Part of all GPUs below which what a kind gets of a pool is the solver's rounding."""


@dataclass(frozen=True, eq=False)
class ShareProblem:
    """Kinds of jobs and pools of GPUs.

    Attributes:
        jobs: (kinds,), jobs of each kind, above 0.
        gpus: (kinds,), GPUs of one job, above 0.
        rates: (kinds, pools), seconds of service a second that a job gets there; 0 where it cannot run.
        capacity: (types,), GPUs of each type, above 0.
        pools: (pools, types), the part of a job's GPUs that is of each type; None where the pools are the types.

    Raises:
        ConfigError: a figure is negative or not finite, a kind can run nowhere, or shapes do not belong together.
    """

    jobs: Floats
    gpus: Floats
    rates: Floats
    capacity: Floats
    pools: Floats | None = None

    def __post_init__(self) -> None:
        for name in ("jobs", "gpus", "capacity"):
            figures = getattr(self, name)
            if figures.ndim != 1 or not (np.isfinite(figures) & (figures > 0)).all():
                raise ConfigError(f"shares: {name} must be a list of finite numbers above 0, not {figures.tolist()}")
        if self.rates.shape != (len(self.jobs), len(self.parts)) or len(self.gpus) != len(self.jobs):
            raise ConfigError(
                f"shares: {len(self.jobs)} kinds of jobs and {len(self.parts)} pools need as many GPU counts and "
                f"{len(self.jobs)} x {len(self.parts)} rates, not {len(self.gpus)} and {self.rates.shape}"
            )
        if not (np.isfinite(self.rates) & (self.rates >= 0)).all():
            raise ConfigError(f"shares: rates must be finite and 0 or more, not {self.rates.tolist()}")
        nowhere = np.flatnonzero((self.rates == 0).all(axis=1))
        if len(nowhere):
            raise ConfigError(f"shares: kind {nowhere[0]} has a rate above 0 in no pool")

    @property
    def parts(self) -> Floats:
        """The pools, (pools, types)."""
        return np.eye(len(self.capacity)) if self.pools is None else self.pools

    @property
    def equal_rate(self) -> Floats:
        """(kinds,): rate of a job that spends its time on all GPUs of the cluster alike."""
        size = (self.parts > 0) @ self.capacity / self.capacity.sum()
        equal: Floats = self.rates @ size
        return equal

    def throughput(self, shares: Floats) -> Floats:
        """Return the GPU-seconds of service a second of one job of each kind, (kinds,)."""
        rate: Floats = self.gpus * (self.rates * shares).sum(axis=1)
        return rate

    def levels(self, shares: Floats) -> Floats:
        """Return each job's throughput over its rate on an equal share, (kinds,): what max-min fairness compares."""
        return self.throughput(shares) / self.equal_rate


def max_min_shares(problem: ShareProblem) -> Floats:
    """Return the shares, (kinds, pools), under which the worst-off job is best off, then the next, and so on.

    Compared are `levels`: throughput over that of an equal share, times GPUs (Gavel, section 4.1). Solved by water
    filling, one program for each level at which some kind can gain no more.

    Raises:
        NoOptimum: HiGHS does not find the optimum.
        MissingExtra: scipy is not installed.
    """
    return _water_filled(problem, *_resources(problem))


def max_throughput_shares(problem: ShareProblem) -> Floats:
    """Return the shares, (kinds, pools), with the most GPU-seconds of service a second; among those the fairest.

    Raises:
        NoOptimum: HiGHS does not find the optimum.
        MissingExtra: scipy is not installed.
    """
    rows, limits = _resources(problem)
    gain = (problem.jobs * problem.gpus)[:, None] * problem.rates
    most = maximise(gain.ravel(), rows, limits)
    kept = -gain.reshape(1, -1) / most.value
    return _water_filled(problem, np.vstack([rows, kept]), np.append(limits, _SLACK - 1.0))


def _resources(problem: ShareProblem) -> tuple[Floats, Floats]:
    """Rows and limits of what any shares obey: time of a job, GPUs of a type."""
    kinds, pools = problem.rates.shape
    time = np.kron(np.eye(kinds), np.ones((1, pools)))
    gpus = np.kron(problem.jobs * problem.gpus, problem.parts.T) / problem.capacity[:, None]
    barred = (problem.rates == 0).ravel()
    never = np.eye(kinds * pools)[barred]
    limits = np.concatenate([np.ones(kinds + len(problem.capacity)), np.zeros(len(never))])
    return np.vstack([time, gpus, never]), limits


def _water_filled(problem: ShareProblem, rows: Floats, limits: Floats) -> Floats:
    """Raise the levels of all kinds together; those that are stuck keep theirs while the others rise further."""
    kinds, pools = problem.rates.shape
    level = np.kron(np.eye(kinds), np.ones((1, pools))) * (
        (problem.gpus / problem.equal_rate)[:, None] * problem.rates
    ).reshape(1, -1)
    rising = np.ones(kinds, np.bool_)
    reached = np.zeros(kinds)
    found = _raised(level, rising, reached, rows, limits)
    while True:
        # A price above 0 says that the level binds in every optimum: no other shares give that kind more.
        stuck = rising & (found.prices[:kinds] > 1e-9)
        reached[stuck] = found.value
        rising &= ~stuck
        if not stuck.any() or not rising.any():
            break
        try:
            found = _raised(level, rising, reached, rows, limits)
        except NoOptimum:  # by rounding: the shares found last obey every limit
            break
    shares: Floats = found.x[:-1].reshape(kinds, pools)
    held = (problem.jobs * problem.gpus)[:, None] * shares
    shares[held < _NOTHING * problem.capacity.sum()] = 0.0
    return shares


def _raised(level: Floats, rising: Bools, reached: Floats, rows: Floats, limits: Floats) -> Solution:
    """Maximise the least level of the rising kinds; the others keep what they have reached."""
    common = np.append(rising.astype(np.float64), np.zeros(len(rows)))[:, None]
    kept = np.where(rising, 0.0, _SLACK * np.maximum(reached, 1.0) - reached)
    return maximise(
        np.append(np.zeros(level.shape[1]), 1.0),
        np.hstack([np.vstack([-level, rows]), common]),
        np.concatenate([kept, limits]),
    )
