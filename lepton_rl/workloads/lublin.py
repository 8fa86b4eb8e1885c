"""The Lublin-Feitelson model of parallel jobs.

U. Lublin and D. G. Feitelson, "The workload on parallel supercomputers: modeling the characteristics of rigid
jobs", J. Parallel and Distributed Computing 63(11), 2003. The constants are those of the authors' program
lublin99.c (Parallel Workloads Archive, m_lublin99): one set for all jobs, and one each for batch and
interactive jobs. The trace lublin_256 that RLScheduler and others use comes from the set for all jobs, on 256
processors: every row has the program's single type, and sizes and run times agree with that set.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import ConfigError
from lepton_rl.workloads.arrivals import DAY, Seed, through_cycle
from lepton_rl.workloads.trace import MachineHeader, Trace

Kind = Literal["all", "batch", "interactive"]

_SLOTS = 48  # half hours in a day
_DAY_STARTS_AT = 11  # slot in which the gamma density of the daily cycle begins
_GRID = 20001


@dataclass(frozen=True)
class LublinParameters:
    """The model's numbers; the defaults are the published ones for all jobs together, on 128 processors.

    Attributes:
        processors: of the machine; no job asks for more.
        serial: probability of one processor.
        power_of_two: probability of a parallel job whose size is rounded to a power of two.
        size_low: log2 of the smallest parallel size (below 1 makes 2 processors likelier).
        size_mid: log2 of the size where the two uniform stages meet.
        size_high: log2 of the largest size.
        size_first: probability of the lower stage.
        short: shape and scale of the gamma distribution of ln(run time / s), the short jobs' part.
        long: the same for the long jobs' part.
        short_slope: p = short_slope * size + short_base is the probability of the short part.
        short_base: see short_slope.
        gap: shape and scale of the gamma distribution of ln(gap between arrivals / s).
        cycle: shape and scale, in half hours, of the gamma density of arrivals over the day.
        max_log_run_time: longer ln(run time) are drawn again.
        max_log_gap: longer ln(gap) are drawn again.
    """

    processors: int = 128
    serial: float = 0.244
    power_of_two: float = 0.576
    size_low: float = 0.8
    size_mid: float = 4.5
    size_high: float = 7.0
    size_first: float = 0.86
    short: tuple[float, float] = (4.2, 0.94)
    long: tuple[float, float] = (312.0, 0.03)
    short_slope: float = -0.0054
    short_base: float = 0.78
    gap: tuple[float, float] = (10.2303 * 1.0225, 0.4871)  # shape of the rush hours times ARAR
    cycle: tuple[float, float] = (8.1737, 3.9631)
    max_log_run_time: float = 12.0
    max_log_gap: float = 13.0

    def __post_init__(self) -> None:
        bounds = {
            "processors is at least 1": self.processors >= 1,
            "serial and power_of_two are probabilities": min(self.serial, self.power_of_two) >= 0.0
            and self.serial + self.power_of_two <= 1.0,
            "size_first is a probability": 0.0 <= self.size_first <= 1.0,
            "0 <= size_low <= size_mid <= size_high": 0.0 <= self.size_low <= self.size_mid <= self.size_high,
            "size_high is at most 30": self.size_high <= 30.0,
            "shapes and scales are above 0": min(*self.short, *self.long, *self.gap, *self.cycle) > 0.0,
            "max_log_run_time and max_log_gap lie between 1 and 25": 1.0
            <= min(self.max_log_run_time, self.max_log_gap)
            <= max(self.max_log_run_time, self.max_log_gap)
            <= 25.0,
        }
        for rule, holds in bounds.items():
            if not holds:
                raise ConfigError(f"Lublin parameters: {rule}; got {self}")

    @classmethod
    def for_machine(cls, processors: int, kind: Kind = "all") -> "LublinParameters":
        """Return the published numbers with the sizes fitted to a machine.

        The authors say how: size_high is log2 of the machine, and size_mid lies 1.5 to 3.5 below it (2.5 in
        their set for all jobs, 2 for batch).
        """
        if kind not in _PUBLISHED:
            raise ConfigError(f"Lublin parameters: no kind {kind!r}; known: {', '.join(_PUBLISHED)}")
        published = _PUBLISHED[kind]
        if processors < 1:
            raise ConfigError(f"Lublin parameters: {processors} processors; there must be at least 1")
        larger = math.log2(processors) - math.log2(published.processors)
        high = max(published.size_high + larger, 0.0)
        low = min(published.size_low, high)
        mid = min(max(published.size_mid + larger, low + 0.5), high)
        return replace(published, processors=processors, size_low=low, size_mid=mid, size_high=high)

    @property
    def offered_load(self) -> float:
        """The load of the machine that these numbers give in the long run."""
        return _processor_seconds(self) / (self.processors * _mean_gap(self))


_PUBLISHED: dict[str, LublinParameters] = {
    "all": LublinParameters(),
    "batch": LublinParameters(
        serial=0.2927,
        power_of_two=0.6686,
        size_low=1.2,
        size_mid=5.0,
        size_first=0.875,
        short=(6.57, 0.823),
        long=(639.1, 0.0156),
        short_slope=-0.003,
        short_base=0.6986,
        gap=(6.0415 * 1.0519, 0.8531),
        cycle=(6.1271, 5.2740),
    ),
    "interactive": LublinParameters(
        serial=0.1541,
        power_of_two=0.625,
        size_low=1.0,
        size_mid=3.0,
        size_high=5.5,
        size_first=0.705,
        short=(3.8351, 0.6605),
        long=(7.073, 0.6856),
        short_slope=-0.0118,
        short_base=0.9156,
        gap=(6.5510 * 0.9797, 0.6621),
        cycle=(8.9186, 3.6680),
    ),
}

# The published file lublin_256: the set for all jobs on 256 processors, save that its gaps end earlier. The
# largest is 124,860 s at constant rate and their CV 5.1; with the program's limit of exp(13) s, 5 of 200
# generated traces have a CV as low (median 7.0), with exp(12) s a fifth of them (median 5.3).
LUBLIN_256 = replace(LublinParameters.for_machine(256), max_log_gap=12.0)
LUBLIN_256_LOAD = 1.06  # of the file; the parameters alone give 0.95 in the long run


def lublin(
    n_jobs: int,
    processors: int,
    seed: Seed,
    load: float | None = None,
    parameters: LublinParameters | None = None,
) -> Trace:
    """Return `n_jobs` jobs of the model, from midnight of the first day.

    Gaps are heavy-tailed: the load of one trace scatters widely about its expectation, by some 7 % in 10,000
    jobs. There are no requested times, so the run times stand in their place.

    Args:
        n_jobs: at least 1.
        processors: of the machine.
        seed: or a generator to draw from.
        load: offered load to expect; all gaps are scaled alike. None keeps the model's own.
        parameters: `LublinParameters.for_machine(processors)` if None.
    """
    model = parameters or LublinParameters.for_machine(processors)
    if n_jobs < 1:
        raise ConfigError(f"lublin: {n_jobs} jobs; there must be at least 1")
    if model.processors != processors:
        raise ConfigError(f"lublin: the parameters are for {model.processors} processors, not {processors}")
    if load is not None and not 0.0 < load <= 1000.0:
        raise ConfigError(f"lublin: the load is {load:g}; it must lie between 0 and 1000")
    rng = np.random.default_rng(seed)
    sizes = _draw_sizes(n_jobs, model, rng)
    run_time = np.floor(np.exp(_draw_log_run_times(sizes, model, rng)))
    gaps = np.exp(_draw_gammas(n_jobs, model.gap, model.max_log_gap, rng))
    if load is not None:
        gaps *= model.offered_load / load
    submit = np.floor(through_cycle(gaps, np.array(_cycle_weights(model.cycle)), DAY))
    return Trace.from_columns(
        {"submit_time": submit, "run_time": run_time, "gpus": sizes},
        name=f"lublin_{processors}",
        machine=MachineHeader(max_nodes=processors, max_procs=processors),
    )


def _sizes(logs: NDArray[np.float64], rounded: NDArray[np.bool_], model: LublinParameters) -> NDArray[np.float64]:
    """Return processors from their log2; `rounded` marks powers of two."""
    whole = np.minimum(np.floor(logs + 0.5), math.floor(model.size_high))
    sizes = np.floor(2.0 ** np.where(rounded, whole, logs) + 0.5)
    return np.minimum(sizes, model.processors)


def _draw_sizes(n: int, model: LublinParameters, rng: np.random.Generator) -> NDArray[np.float64]:
    kind = rng.random(n)
    lower = rng.random(n) < model.size_first
    position = rng.random(n)
    logs = np.where(
        lower,
        model.size_low + position * (model.size_mid - model.size_low),
        model.size_mid + position * (model.size_high - model.size_mid),
    )
    sizes = _sizes(logs, kind < model.serial + model.power_of_two, model)
    return np.where(kind < model.serial, 1.0, sizes)


def _draw_log_run_times(
    sizes: NDArray[np.float64], model: LublinParameters, rng: np.random.Generator
) -> NDArray[np.float64]:
    share = np.clip(model.short_slope * sizes + model.short_base, 0.0, 1.0)
    logs = np.full(len(sizes), np.inf)
    again = np.arange(len(sizes))
    while len(again):
        short = rng.random(len(again)) < share[again]
        shape = np.where(short, model.short[0], model.long[0])
        scale = np.where(short, model.short[1], model.long[1])
        logs[again] = rng.gamma(shape, scale)
        again = again[logs[again] > model.max_log_run_time]
    return logs


def _draw_gammas(n: int, gamma: tuple[float, float], upto: float, rng: np.random.Generator) -> NDArray[np.float64]:
    values = rng.gamma(*gamma, n)
    while (large := values > upto).any():
        values[large] = rng.gamma(*gamma, int(np.count_nonzero(large)))
    return values


def _gamma_density(x: NDArray[np.floating[Any]], gamma: tuple[float, float]) -> NDArray[np.float64]:
    shape, scale = gamma
    log_density = (shape - 1.0) * np.log(x / scale) - x / scale - math.lgamma(shape)
    density: NDArray[np.float64] = np.exp(log_density) / scale
    return density


@lru_cache(maxsize=64)
def _cycle_weights(cycle: tuple[float, float]) -> tuple[float, ...]:
    """Return the relative arrival rate of each half hour, slot 0 at midnight."""
    # slot i - 1 holds the gamma probability of (i - 0.5, i + 0.5], i counted on from the day's start
    fine = _DAY_STARTS_AT - 0.5 + (np.arange(_SLOTS * 100) + 0.5) / 100
    weights = _gamma_density(fine, cycle).reshape(_SLOTS, 100).sum(axis=1)
    rolled = np.roll(weights, _DAY_STARTS_AT - 1)
    return tuple((rolled / rolled.mean()).tolist())


@lru_cache(maxsize=64)
def _mean_gap(model: LublinParameters) -> float:
    """Return the expected gap between arrivals over whole days, seconds."""
    mean, mass = _truncated_mean(model.gap, model.max_log_gap)
    return mean / mass


def _truncated_mean(gamma: tuple[float, float], upto: float) -> tuple[float, float]:
    """Return E[exp(g); g <= upto] and P(g <= upto) by the midpoint rule."""
    step = upto / _GRID
    x = (np.arange(_GRID) + 0.5) * step
    density = _gamma_density(x, gamma) * step
    return float(density @ np.exp(x)), float(density.sum())


@lru_cache(maxsize=64)
def _processor_seconds(model: LublinParameters) -> float:
    """Return the expected product of a job's processors and its run time."""
    quantiles = (np.arange(_GRID) + 0.5) / _GRID
    stages = (
        (model.size_first, model.size_low, model.size_mid),
        (1.0 - model.size_first, model.size_mid, model.size_high),
    )
    other = 1.0 - model.serial - model.power_of_two
    sizes, chances = [np.ones(1)], [np.array([model.serial])]
    for probability, low, high in stages:
        logs = low + quantiles * (high - low)
        for rounded, share in ((True, model.power_of_two), (False, other)):
            sizes.append(_sizes(logs, np.full(_GRID, rounded), model))
            chances.append(np.full(_GRID, probability * share / _GRID))
    n, chance = np.concatenate(sizes), np.concatenate(chances)
    short_mean, short_mass = _truncated_mean(model.short, model.max_log_run_time)
    long_mean, long_mass = _truncated_mean(model.long, model.max_log_run_time)
    p = np.clip(model.short_slope * n + model.short_base, 0.0, 1.0)
    # a draw beyond the maximum chooses the part anew, so the mixture is truncated as a whole
    mean = (p * short_mean + (1.0 - p) * long_mean) / (p * short_mass + (1.0 - p) * long_mass)
    return float(chance @ (n * (mean - 0.5)))  # run times are cut to whole seconds
