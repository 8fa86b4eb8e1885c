"""Jobs that can wait, held back until power is cheap or clean."""

from dataclasses import dataclass, replace

import numpy as np

from lepton_rl.core.arrays import Floats
from lepton_rl.core.hardware import HourlySeries
from lepton_rl.core.units import SECONDS_PER_HOUR
from lepton_rl.experiments.advice.candidate import Candidate
from lepton_rl.experiments.advice.study import Idea, LeftOut, Study
from lepton_rl.workloads import Trace

HOURS_OF_A_DAY = 24
LONG_JOB_S = SECONDS_PER_HOUR
"""Where no job says that it can wait, those are taken that run at least so long."""
_UNITS = {"electricity_usd": ("electricity", "USD/MWh"), "carbon_kg": ("carbon intensity", "g/kWh")}


@dataclass(frozen=True, slots=True)
class _Patience:
    """Which jobs of a window can wait, how long at most (seconds, shape (jobs,)), and how that is known."""

    seconds: Floats
    known_by: str


def cheaper_hours(study: Study) -> Idea:
    """Try to hold jobs that can wait back to the cheapest, and to the cleanest, of the next hours."""
    tariffs = study.setup.cluster.tariffs
    for goal, series in (("electricity_usd", tariffs.electricity), ("carbon_kg", tariffs.carbon)):
        name = _UNITS[goal][0]
        if series is None:
            yield LeftOut(f"hours of low {name}", f"the cluster has no series of it ({name.split()[0]} in its file)")
        elif np.ptp(series.values) == 0:
            yield LeftOut(f"hours of low {name}", "every hour has the same")
        else:
            yield _deferred(study, goal, series)


def _deferred(study: Study, goal: str, series: HourlySeries) -> Candidate:
    patience = [_patience(trace, study) for trace in study.traces]
    shifts = [
        _shifts(trace, found.seconds, study.defer_hours, series)
        for trace, found in zip(study.traces, patience, strict=True)
    ]
    moved = np.concatenate(shifts)
    held = moved > 0
    share = study.gpu_seconds[held].sum() / study.gpu_seconds.sum()
    hours = moved[held].mean() / SECONDS_PER_HOUR if held.any() else 0.0
    text = (
        f"Hold jobs back to the hours with the least {_UNITS[goal][0]}: {_best_hours(study, series, _UNITS[goal][1])}. "
        f"Simulated with {np.count_nonzero(held):,} of {len(held):,} jobs ({share:.0%} of the GPU-hours) submitted up "
        f"to {study.defer_hours} h later, {hours:.1f} h in the mean: {patience[0].known_by}. Their completion time and "
        "wait count from then on."
    )
    later = tuple(trace.delayed(shift) for trace, shift in zip(study.traces, shifts, strict=True))
    title = f"jobs that can wait, up to {study.defer_hours} h later, by {_UNITS[goal][0]}"
    return Candidate(f"hours of low {_UNITS[goal][0]}", title, text, goal, replace(study.setup, windows=later))


def _patience(trace: Trace, study: Study) -> _Patience:
    """Return how long the jobs of a window can wait by what the whole study says of its jobs.

    Deadlines say it (half of the slack, for the queue takes some of it), else low time sensitivity, else nothing does.
    """
    longest = study.defer_hours * SECONDS_PER_HOUR
    if not np.isnan(study.column("deadline")).all():
        slack = np.nan_to_num(trace.deadline - _expected(trace), nan=0.0) / 2
        return _Patience(np.clip(slack, 0.0, longest), "half of the slack that their deadlines leave")
    sensitivity = study.column("time_sensitivity")
    if np.ptp(sensitivity) > 0:
        low = sensitivity.min() + np.ptp(sensitivity) / 2
        can_wait = trace.time_sensitivity < low
        return _Patience(np.where(can_wait, longest, 0.0), f"those with a time_sensitivity below {low:g}")
    known_by = (
        "those of an hour and more, an assumption, for no column says which jobs can wait (time_sensitivity or "
        "deadline would)"
    )
    return _Patience(np.where(_expected(trace) >= LONG_JOB_S, longest, 0.0), known_by)


def _expected(trace: Trace) -> Floats:
    """Return how long each job is expected to run, seconds."""
    expected: Floats = np.where(np.isnan(trace.requested_time), trace.run_time, trace.requested_time)
    return expected


def _shifts(trace: Trace, patience: Floats, hours: int, series: HourlySeries) -> Floats:
    """Return by how many seconds each job is held back: the whole hours with the least mean value over its run.

    The first job of a window stays, so that the window begins when it did.
    """
    begin, seconds = trace.submit_time, _expected(trace)
    best, least = np.zeros(len(trace)), _mean_value(begin, seconds, series)
    for hour in range(1, hours + 1):
        shift = hour * SECONDS_PER_HOUR
        value = _mean_value(begin + shift, seconds, series)
        better = (value < least) & (shift <= patience)
        best, least = np.where(better, float(shift), best), np.where(better, value, least)
    best[0] = 0.0
    return best


def _mean_value(begin: Floats, seconds: Floats, series: HourlySeries) -> Floats:
    """Return the mean of the series over each run; infinite where it ends before the run does."""
    ends = begin + seconds
    at_begin, at_end = (np.interp(times, series.edges, series.cumulative) for times in (begin, ends))
    mean: Floats = np.where(ends <= series.seconds, (at_end - at_begin) / seconds, np.inf)
    return mean


def _best_hours(study: Study, series: HourlySeries, unit: str) -> str:
    """Return which hours of a day are the best over the time of the study, and how good they are."""
    end = max(float(outcome.finish.max()) for outcome in study.outcomes)
    begin = min(float(trace.submit_time[0]) for trace in study.traces)
    first, last = int(begin // SECONDS_PER_HOUR), int(np.ceil(end / SECONDS_PER_HOUR))
    values = series.values[first:last]
    hour = np.arange(first, first + len(values)) % HOURS_OF_A_DAY
    known = np.unique(hour)
    means = np.array([values[hour == h].mean() for h in known])
    best = np.sort(known[np.argsort(means, kind="stable")[:3]])
    named = ", ".join(str(h) for h in best)
    return (
        f"the best hours of the day are {named} (counted from the workload's time 0), {np.sort(means)[:3].mean():.4g} "
        f"against {values.mean():.4g} {unit} in the mean"
    )
