"""The published evaluation of RLScheduler, kept apart from this package's own rules.

Zhang et al., "RLScheduler: An Automated HPC Batch Job Scheduler Using Reinforcement Learning", SC'20; the
rules are those of the authors' program (DIR-LAB/deep-batch-scheduler). A figure from here may be compared
with that paper and with nothing else, because the rules are not the usual ones:

- Commit. The queue is sorted by score; its first job is the head. If it does not fit, everything waits for
  it: time advances event by event until it does, and jobs that arrive meanwhile do not displace it.
- Events come one at a time; at equal times arrivals first, in the order of the rows, then completions in
  start order. A window starts with an empty machine at the submit time of its first job.
- Sorts are stable and leave their order to the next one: with equal keys, the order before the sort stays.
- Backfilling. When the head does not fit, a shadow time is computed once from requested times. At each event
  until the head fits, waiting jobs in submission order start if they fit and `now + requested < shadow`.
- Backward aging. WFP3 and UNICEP read the waiting time from a start time that is still -1: w = -(submit + 1).
  The rule "published" keeps that; "published-wait-fixed" has w = now - submit.

The third rule, "repick", is no rule of theirs but the measure of what commitment costs: waiting times are
fixed, and after each event the head is chosen anew if it still does not fit. A head that the event made fit
starts, even where another job's aging score has overtaken it at that moment.

The machine is a number of processors; a job takes any of them. Times are seconds as the trace gives them.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton_rl.core.slowdown import bounded_slowdown
from lepton_rl.errors import ConfigError, TraceError, UnknownPolicy, nearest

Floats = NDArray[np.float64]
Rule = Literal["published", "published-wait-fixed", "repick"]

RULES: Final[tuple[str, ...]] = get_args(Rule)


def start_indices(seed: int, n_jobs: int, window: int = 1024, iterations: int = 10) -> list[int]:
    """Return where the published evaluation with this seed starts its windows in a trace of `n_jobs` jobs.

    Indices count from 0 and lie in [window, n_jobs - window - 1); the windows may overlap.
    """
    if seed < 0:
        raise ConfigError(f"the published protocol needs a seed of 0 or more, not {seed}")
    if window < 1 or iterations < 1:
        raise ConfigError(f"window and iterations must be 1 or more, not {window} and {iterations}")
    if n_jobs < 2 * window + 2:
        raise TraceError(
            f"the published protocol draws windows of {window} jobs from at least {2 * window + 2}; "
            f"the trace has {n_jobs}"
        )
    # OpenAI Gym's seeding at the time: SHA-512 of the decimal seed, its first 8 bytes as 32-bit words. A
    # leading zero word was left out there, one seed in 2^32. The protocol names this generator.
    words = np.frombuffer(hashlib.sha512(str(seed).encode()).digest()[:8], dtype="<u4")
    draw = np.random.RandomState(words)
    return [int(draw.randint(window, n_jobs - window - 1)) for _ in range(iterations)]


def run_window(
    submit: ArrayLike,
    run: ArrayLike,
    requested: ArrayLike,
    procs: ArrayLike,
    *,
    processors: int,
    rule: Rule,
    score: str,
    backfill: bool,
) -> Floats:
    """Schedule one window from an empty machine and return the start time of each job, in the order given.

    Args:
        submit: Submit times as they stand in the trace (F1-F4 read them), in the order of arrival: job ids.
        run: True run times; execution and the metric use them.
        requested: Requested times; scores and reservations use them.
        procs: Processors of each job, whole numbers.
        processors: Size of the machine.
        rule: The first two differ for WFP3 and UNICEP only.
        score: One of `SCORES`.
        backfill: Whether the authors' backfilling is on; it belongs to a committed head, so not to "repick".
    """
    if rule not in RULES:
        known = ", ".join(RULES)
        raise ConfigError(f"no published rule named {rule!r}{nearest(rule, RULES)}; known: {known}")
    if score not in SCORES:
        known = ", ".join(SCORES)
        raise UnknownPolicy(f"no published score named {score!r}{nearest(score, SCORES)}; known: {known}")
    if backfill and rule == "repick":
        raise ConfigError("the published backfilling needs a committed head: rule 'repick' has none")
    columns = _checked(submit, run, requested, procs, processors)
    s, _, r, n = columns
    sort_queue = _queue_sort(score, rule, s, r, n)
    return _Machine(*columns, processors).schedule(sort_queue, backfill, commit=rule != "repick")


def mean_bounded_slowdown(start: ArrayLike, submit: ArrayLike, run: ArrayLike) -> float:
    """Return the mean over jobs of max(1, (wait + run) / max(run, 10 s))."""
    start, submit, run = (np.asarray(column, dtype=np.float64) for column in (start, submit, run))
    return float(bounded_slowdown(start - submit, run).mean())


def _checked(
    submit: ArrayLike, run: ArrayLike, requested: ArrayLike, procs: ArrayLike, processors: int
) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the columns as float64, or raise the TraceError that names the first bad job."""
    s, p, r, n = (np.asarray(column, dtype=np.float64) for column in (submit, run, requested, procs))
    if s.ndim != 1 or s.size == 0 or not s.shape == p.shape == r.shape == n.shape:
        raise TraceError("a window needs at least one job and columns of equal length")
    is_size = (n >= 1) & (n <= processors) & (n == np.floor(n))
    for name, column, is_good, allowed in (
        ("submit", s, s >= 0, "0 seconds or more"),
        ("run", p, p > 0, "more than 0 seconds"),
        ("requested", r, r > 0, "more than 0 seconds"),
        ("procs", n, is_size, f"a whole number from 1 to {processors}"),
    ):
        bad = np.flatnonzero(~(np.isfinite(column) & is_good))
        if bad.size:
            raise TraceError(f"job {bad[0]} of the window: {name} must be {allowed}, not {column[bad[0]]:g}")
    return s, p, r, n


# Scores, ascending: s submit time, r requested time, n processors, w waiting time. Where two columns are
# given, the second breaks ties.


def _log10(s: Floats) -> Floats:
    with np.errstate(divide="ignore"):  # a job submitted at 0 comes first
        return np.log10(s)


def _unicep(w: Floats, r: Floats, n: Floats) -> Floats:
    # 1e-15 as in the authors' program: log2(1) = 0 would divide by zero. Serial jobs get huge scores by it.
    return -(w + 1e-15) / (np.log2(n + 1e-15) * r)


def _wfp3(w: Floats, r: Floats, n: Floats) -> Floats:
    return -((w / r) ** 3) * n


Score = Callable[[Floats, Floats, Floats], Sequence[Floats]]
_FIXED: Final[dict[str, Score]] = {
    "fcfs": lambda s, r, n: [s],
    "sjf": lambda s, r, n: [r, s],
    "smallest": lambda s, r, n: [n, s],
    "saf": lambda s, r, n: [r * n],
    "f1": lambda s, r, n: [np.log10(r) * n + 870 * _log10(s)],
    "f2": lambda s, r, n: [np.sqrt(r) * n + 25600 * _log10(s)],
    "f3": lambda s, r, n: [r * n + 6860000 * _log10(s)],
    "f4": lambda s, r, n: [r * np.sqrt(n) + 530000 * _log10(s)],
}
_AGING: Final[dict[str, Callable[[Floats, Floats, Floats], Floats]]] = {"wfp3": _wfp3, "unicep": _unicep}
SCORES: Final[tuple[str, ...]] = (*_FIXED, *_AGING)

QueueSort = Callable[[list[int], float], None]  # sorts the waiting jobs in place, given the time


def _queue_sort(score: str, rule: Rule, s: Floats, r: Floats, n: Floats) -> QueueSort:
    if score in _AGING and rule != "published":
        aging = _AGING[score]

        def sort_by_age(queue: list[int], now: float) -> None:
            jobs = np.array(queue, dtype=np.intp)
            by_score = np.argsort(aging(now - s[jobs], r[jobs], n[jobs]), kind="stable")
            queue[:] = jobs[by_score].tolist()

        return sort_by_age
    columns = _FIXED[score](s, r, n) if score in _FIXED else [_AGING[score](-1.0 - s, r, n)]
    keys = list(zip(*(column.tolist() for column in columns), strict=True))

    def sort_by_key(queue: list[int], now: float) -> None:
        queue.sort(key=keys.__getitem__)

    return sort_by_key


class _Machine:
    """One window on its way through the machine.

    `queue` and `running` are sorted in place by one key after another, as in the authors' program: among jobs
    of equal key the order that an earlier sort left decides.
    """

    def __init__(self, submit: Floats, run: Floats, requested: Floats, procs: Floats, processors: int) -> None:
        self.submit = submit.tolist()
        self.run = run.tolist()
        self.requested = requested.tolist()
        self.procs = procs.astype(np.int64).tolist()
        self.free = processors
        self.now: float = self.submit[0]
        self.arrived = 0
        self.queue: list[int] = []
        self.running: list[int] = []
        self.start: list[float] = [np.nan] * len(self.submit)
        self.end: list[float] = [np.nan] * len(self.submit)
        self.expected_end: list[float] = [np.nan] * len(self.submit)

    def schedule(self, sort_queue: QueueSort, backfill: bool, commit: bool) -> Floats:
        """Run the window to the start of its last job."""
        self._arrive()
        while True:
            sort_queue(self.queue, self.now)
            head = self.queue[0]
            if backfill and self.procs[head] > self.free:
                self._backfill_until_it_fits(head)
            while self.procs[head] > self.free:
                self._next_event()
                if not commit and self.procs[head] > self.free:
                    sort_queue(self.queue, self.now)
                    head = self.queue[0]
            self._start(head)
            if not self.queue and self.arrived == len(self.submit):
                return np.array(self.start, dtype=np.float64)
            while not self.queue:
                self._next_event()

    def _arrive(self) -> None:
        self.now = max(self.now, self.submit[self.arrived])  # job ids need not follow submit times
        self.queue.append(self.arrived)
        self.arrived += 1

    def _next_event(self) -> None:
        self.running.sort(key=self.end.__getitem__)
        release = self.end[self.running[0]] if self.running else np.inf
        if self.arrived < len(self.submit) and self.submit[self.arrived] <= release:
            self._arrive()
        else:
            self.now = max(self.now, release)
            self.free += self.procs[self.running.pop(0)]

    def _start(self, job: int) -> None:
        self.start[job] = self.now
        self.end[job] = self.now + self.run[job]
        self.expected_end[job] = self.now + self.requested[job]
        self.free -= self.procs[job]
        self.queue.remove(job)
        self.running.append(job)

    def _backfill_until_it_fits(self, head: int) -> None:
        shadow = self._shadow(head)
        while self.procs[head] > self.free:
            self.queue.sort(key=self.submit.__getitem__)
            for job in list(self.queue):
                if self.procs[job] <= self.free and self.now + self.requested[job] < shadow:
                    self._start(job)
            self._next_event()

    def _shadow(self, head: int) -> float:
        """When enough processors are free for the head, if every running job ends as requested."""
        self.running.sort(key=self.expected_end.__getitem__)
        free = self.free
        for job in self.running:
            free += self.procs[job]
            if free >= self.procs[head]:
                return self.expected_end[job]
        raise AssertionError("the head fits on the empty machine")
