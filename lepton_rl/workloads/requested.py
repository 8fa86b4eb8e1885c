"""Models of the run times that users ask for when they submit.

`noisy` is a prediction with a log-normal error, which may be too short. `tsafrir` is a limit as people give
it: never below the run time, and mostly one of a few round values.
"""

import math

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import ConfigError, counted, nearest

MODES = ("given", "exact", "noisy:SIGMA", "tsafrir", "absent")
NOTE = "requested times: "
"""How every note about where requested times come from begins: other times bring a note of their own."""
CLAIRVOYANT = f"{NOTE}none are given, the run times stand in their place (a clairvoyant workload)"


def partly_given(rows: int) -> str:
    """Return the note of a trace in which that many rows have no requested time."""
    return f"{NOTE}none in {counted(rows, 'row')}, the run time stands in its place"


_MINUTE, _HOUR = 60, 3600

# Tsafrir, Etsion, Feitelson, "Modeling User Runtime Estimates", JSSPP 2005, with the constants of the
# authors' program (est_model, Parallel Workloads Archive, m_tsafrir05).
_HEAD = 20  # that many values make up HEAD_PERCENT of all estimates
_HEAD_PERCENT = 89.0
_HEAD_SIZES = (14.0491, -0.177531, 0.462513)  # percent of jobs at popularity rank x: a*exp(b*x) + c
_TAIL_SIZES_POWER = -2.267  # share at popularity rank x > 20 goes as x**b
_TAIL_TIMES = (12.1039, -0.6026)  # a = 1 + p*bins**q in time(x) = (a - 1)*x / (a - x)
_BINS_BY_JOBS = ((0, 20, 200, 1000, 10000, 70000, 250000), (0, 10, 20, 35, 90, 340, 565))
_COMMON_MINUTES = (5, 10, 15, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 720, 1080)
_ROUND_STEPS = (
    *(hours * _HOUR for hours in (200, 100, 50, 10, 5, 2, 1)),
    *(minutes * _MINUTE for minutes in (20, 10, 5)),
)
# Popularity rank of the head's values in order of time (the maximum first), one row for each trace studied.
_RANK_BY_TIME = (
    (3, 1, 4, 17, 13, 7, 8, 18, 2, 6, 16, 10, 5, 15, 14, 19, 11, 12, 9, 20),  # SDSC-106
    (1, 3, 4, 2, 12, 9, 8, 18, 6, 7, 11, 20, 16, 5, 14, 13, 10, 15, 17, 19),  # CTC
    (1, 4, 10, 14, 20, 2, 3, 7, 12, 6, 19, 5, 18, 16, 9, 17, 15, 13, 8, 11),  # KTH
    (1, 6, 5, 3, 7, 2, 18, 19, 4, 11, 20, 9, 10, 14, 13, 16, 15, 17, 8, 12),  # BLUE
)


def parse_mode(text: str) -> tuple[str, float | None]:
    """Split "noisy:0.5" into ("noisy", 0.5); the other modes have no number."""
    mode, _, number = text.partition(":")
    if mode == "noisy" and number:
        try:
            return mode, float(number)
        except ValueError:
            raise ConfigError(f"requested times {text!r}: {number!r} is no number; e.g. noisy:0.5") from None
    known = [name.partition(":")[0] for name in MODES]
    if mode not in known or number:
        hint = nearest(mode, known) if mode not in known else ""
        raise ConfigError(f"requested times {text!r}: no such mode{hint}; known: {', '.join(MODES)}")
    return mode, None


def check_mode(text: str) -> None:
    """Refuse a mode that is not complete: `noisy` without a sigma, or with one out of bounds."""
    mode, sigma = parse_mode(text)
    if mode == "noisy":
        check_sigma(sigma)


def check_sigma(sigma: float | None) -> float:
    """Return the sigma of a log-normal error, 0 to 10."""
    if sigma is None:
        raise ConfigError("requested times 'noisy' need a sigma, e.g. noisy:0.5")
    if not 0.0 <= sigma <= 10.0:
        raise ConfigError(f"requested times 'noisy': sigma is {sigma:g}; it must lie between 0 and 10")
    return sigma


def noisy(run_time: NDArray[np.float64], sigma: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return run times times exp(sigma * N(0, 1)): right in the median, too short for half the jobs."""
    return run_time * np.exp(check_sigma(sigma) * rng.standard_normal(len(run_time)))


def popular_maximum(longest: float) -> float:
    """Return a limit that a site would set: whole hours to a day, then whole days; at least 2 hours."""
    unit = _HOUR if longest <= 24 * _HOUR else 24 * _HOUR
    return float(max(2 * _HOUR, math.ceil(longest / unit) * unit))


def tsafrir(
    run_time: NDArray[np.float64], rng: np.random.Generator, maximum: float | None = None
) -> NDArray[np.float64]:
    """Return estimates by the model of Tsafrir, Etsion and Feitelson (JSSPP 2005).

    Twenty round values, the maximum the most popular among them, make up 89 % of the estimates; a power-law
    tail of other values the rest. The estimates are dealt out at random so that each is at least the job's
    run time. Where run times are too long for the modelled values the authors' program gives up; here the
    estimates in question are raised to the next value of the head.

    Args:
        run_time: seconds.
        rng: drawn from.
        maximum: longest estimate allowed, seconds, at least 2 hours; a round value above the longest run
            time if None.
    """
    longest = float(run_time.max())
    limit = popular_maximum(longest) if maximum is None else float(maximum)
    if limit < max(2 * _HOUR, longest):
        raise ConfigError(
            f"requested times 'tsafrir': the maximum is {limit:g} s; it must be at least 7200 s "
            f"and the longest run time, {longest:g} s"
        )
    times, counts = _distribution(len(run_time), limit, rng)
    estimates = np.sort(np.repeat(times, counts))[::-1]
    order = np.argsort(-run_time, kind="stable")
    needed = run_time[order]
    short = estimates < needed
    if short.any():
        head = np.sort(_head_times(limit))
        estimates = estimates.copy()
        estimates[short] = head[np.searchsorted(head, needed[short])]
        estimates = np.sort(estimates)[::-1]
    result = np.empty_like(run_time)
    result[order] = _deal(estimates, needed, rng)
    return result


def _deal(estimates: NDArray[np.float64], needed: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Give each job, longest first, a random one of the estimates left that are long enough for it."""
    enough = np.searchsorted(-estimates, -needed, side="right")  # that many estimates are >= needed
    jobs = np.arange(len(needed))
    picks = jobs + np.floor(rng.random(len(needed)) * (enough - jobs)).astype(np.int64)
    hand: list[float] = estimates.tolist()
    for job, pick in enumerate(picks.tolist()):
        hand[job], hand[pick] = hand[pick], hand[job]
    return np.array(hand)


def _distribution(jobs: int, maximum: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the estimate values (s) and how many jobs use each; the counts sum to `jobs`."""
    head = _head_times(maximum)
    percent = _head_percent()[_popularity(rng) - 1]
    bins = round(float(np.interp(jobs, *_BINS_BY_JOBS)))
    tail = _tail_times(bins, maximum, head)
    if len(tail):
        sizes = np.arange(_HEAD + 1, _HEAD + 1 + len(tail)) ** _TAIL_SIZES_POWER
        sizes *= (100.0 - _HEAD_PERCENT) / sizes.sum()
        percent = np.concatenate((percent, rng.permutation(sizes)))
    wanted = percent * (jobs / percent.sum())
    counts = np.floor(wanted).astype(np.int64)
    for_remainder = np.argsort(counts - wanted, kind="stable")[: jobs - int(counts.sum())]
    counts[for_remainder] += 1
    return np.concatenate((head, tail)), counts


def _head_times(maximum: float) -> NDArray[np.float64]:
    """Return the maximum, then the other 19 popular values in ascending order."""
    chosen = [float(m * _MINUTE) for m in _COMMON_MINUTES if m * _MINUTE < maximum]
    for step in _ROUND_STEPS:
        value = maximum // step * step
        while value > 0 and len(chosen) < _HEAD - 1:
            if value < maximum and value not in chosen:
                chosen.append(value)
            value -= step
    return np.array([maximum, *sorted(chosen)])


def _head_percent() -> NDArray[np.float64]:
    """Return percent of jobs by popularity rank 1 to 20; rank 1 takes what the others leave."""
    a, b, c = _HEAD_SIZES
    others = a * np.exp(b * np.arange(2, _HEAD + 1)) + c
    return np.concatenate(([_HEAD_PERCENT - others.sum()], others))


def _popularity(rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw the popularity rank of each head value, in order of time, as the four traces have it.

    A rank becomes available once some trace has it at this or an earlier time, and is due at the last such
    time; of two draws the more popular one is taken.
    """
    last = {rank: max(row.index(rank) for row in _RANK_BY_TIME) for rank in range(1, _HEAD + 1)}
    ranks = [1]  # the maximum
    pool: list[int] = []
    for time in range(_HEAD):
        pool += [row[time] for row in _RANK_BY_TIME]
        pool = [rank for rank in pool if rank not in ranks]
        if time == 0:
            continue
        due = [rank for rank in pool if last[rank] <= time]
        draws = rng.integers(len(pool), size=2).tolist()
        ranks.append(min(due) if due else min(pool[draw] for draw in draws))
    return np.array(ranks)


def _tail_times(bins: int, maximum: float, head: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the less popular values: whole minutes, moved by seconds where they meet another value."""
    count = bins - _HEAD
    if count <= 0:
        return np.empty(0)
    a = 1.0 + _TAIL_TIMES[0] * bins ** _TAIL_TIMES[1]
    taken = set(head.tolist())
    tail = []
    for rank in range(1, count + 1):
        x = rank / count
        minute = round((a - 1.0) * x / (a - x) * maximum / _MINUTE) * _MINUTE
        for shift in (0, 30, -30, 20, -20, 10, -10):
            value = float(minute + shift)
            if 0 < value < maximum and value not in taken:
                taken.add(value)
                tail.append(value)
                break
    return np.array(tail)
