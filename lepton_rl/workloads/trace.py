"""The job table that everything else reads: checked, ordered by submission, one array per column."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton_rl.errors import ConfigError, TraceError, counted, nearest
from lepton_rl.workloads import columns as check
from lepton_rl.workloads import deadlines, dependencies
from lepton_rl.workloads.after_column import resolve
from lepton_rl.workloads.columns import COLUMNS, Locate
from lepton_rl.workloads.dependencies import AFTER
from lepton_rl.workloads.requested import CLAIRVOYANT, NOTE, check_sigma, noisy, parse_mode, partly_given, tsafrir

Requested = str
"""Where requested times come from: "given", "exact", "noisy:SIGMA", "tsafrir" or "absent"."""

EXAMPLES = 5  # dropped jobs that are named one by one


@dataclass(frozen=True)
class MachineHeader:
    """What a trace file says about the machine it was recorded on; None where it says nothing.

    Attributes:
        max_nodes: nodes.
        max_procs: processors.
        unix_start_time: seconds since 1970 at the file's submit time 0.
        fields: every header field as text.
    """

    max_nodes: int | None = None
    max_procs: int | None = None
    unix_start_time: float | None = None
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def gpus(self) -> int | None:
        """Size of the machine: a node or processor counts as a GPU; nodes go first."""
        return self.max_nodes or self.max_procs or None


@dataclass(frozen=True)
class Dropped:
    """Rows or jobs that were left out, why, and the first few of them."""

    reason: str
    count: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = "; ..." if self.count > len(self.examples) else ""
        return f"dropped {self.count:,} ({self.reason}): {'; '.join(self.examples)}{more}"


@dataclass(frozen=True, eq=False)
class Trace:
    """Jobs in the order of their submission; there is always at least one.

    Make one with `Trace.from_columns` or a reader: they check every value. The arrays are read-only.

    Attributes:
        job_id: as in the file, or counted from 1.
        submit_time: seconds; 0 is the first job of the file. A window keeps the times of its trace.
        run_time: seconds, above 0.
        requested_time: seconds as the scheduler is told; NaN in every row if `requested` is "absent".
        gpus: a whole number, or a share of one GPU below 1 in steps of 0.001.
        gpu_memory_gib: needed on each GPU; NaN is no figure.
        queue: codes into labels["queue"]; -1 is unknown.
        user: codes into labels["user"]; -1 is unknown.
        project: codes into labels["project"]; -1 is unknown.
        compute_intensity: compute per datum, unit of the user's choice; 1 where unknown.
        time_sensitivity: weight of the job's urgency; 1 where unknown.
        job_class: codes into labels["job_class"]; which of the cluster's speeds hold; -1 is a general job.
        gpu_type: codes into labels["gpu_type"], the types of GPU that will do, joined by `|`; -1 is any.
        deadline: seconds after its submission by which a job should have finished; NaN is none.
        stage: codes into labels["stage"], the jobs of one stage or array; -1 is none.
        gpu_utilization: measured mean utilisation of the job's GPUs over its run, 0 to 1; NaN is unknown. It says how a
            job used what it asked for, and no scheduler sees it.
        labels: the names behind the codes.
        name: for tables and pictures.
        origin: seconds to add to `submit_time` for the file's own stamps.
        machine: the file's header, if it has one.
        requested: where `requested_time` comes from, as `with_requested` calls it; "exact" is the run time itself (a
            clairvoyant workload).
        dropped: what was left out on the way here.
        notes: what was read otherwise than written, one sentence each.
        asks: what the job takes on a node beside each of its GPUs, by the node's name for it: `cpu_cores`,
            `ram_gib`, ...; 0 is nothing. A share of a GPU takes it once.
        after: int64 array of shape (dependencies, 2): pairs of rows (predecessor, successor), sorted, each once. The
            successor joins the queue once it is submitted and all its predecessors have finished. A predecessor that a
            selection leaves out counts as finished.
    """

    job_id: NDArray[np.int64]
    submit_time: NDArray[np.float64]
    run_time: NDArray[np.float64]
    requested_time: NDArray[np.float64]
    gpus: NDArray[np.float64]
    gpu_memory_gib: NDArray[np.float64]
    queue: NDArray[np.int32]
    user: NDArray[np.int32]
    project: NDArray[np.int32]
    compute_intensity: NDArray[np.float64]
    time_sensitivity: NDArray[np.float64]
    job_class: NDArray[np.int32]
    gpu_type: NDArray[np.int32]
    deadline: NDArray[np.float64]
    stage: NDArray[np.int32]
    gpu_utilization: NDArray[np.float64]
    labels: Mapping[str, tuple[str, ...]]
    name: str = "trace"
    origin: float = 0.0
    machine: MachineHeader | None = None
    requested: Requested = "given"
    dropped: tuple[Dropped, ...] = ()
    notes: tuple[str, ...] = ()
    asks: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    after: NDArray[np.int64] = field(default_factory=dependencies.no_edges)

    def __post_init__(self) -> None:
        for column in (*COLUMNS, AFTER):
            object.__setattr__(self, column, _read_only(getattr(self, column)))
        object.__setattr__(self, "asks", {name: _read_only(array) for name, array in self.asks.items()})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()  # unpickled arrays are writeable

    @classmethod
    def from_columns(
        cls,
        columns: Mapping[str, ArrayLike],
        *,
        name: str = "trace",
        labels: Mapping[str, Sequence[str]] | None = None,
        origin: float | None = None,
        machine: MachineHeader | None = None,
        requested: Requested | None = None,
        dropped: Iterable[Dropped] = (),
        notes: Iterable[str] = (),
        locate: Locate | None = None,
        edges: ArrayLike | None = None,
    ) -> Self:
        """Check and order a table of jobs.

        `submit_time`, `run_time` and `gpus` are required. Jobs are sorted by submit time; equal times keep
        their order. A row without requested time gets its run time, unless `requested` is "absent".

        Args:
            columns: values by column name; queue, user, project, job_class, gpu_type and stage as names or whole
                numbers; NAME_per_gpu is what a job asks of NAME beside each GPU; `after` names the jobs that each
                one comes after: text as in a plain CSV ("3|stage:prepare"), or a sequence of job ids.
            name: for tables and pictures.
            labels: for the category columns whose values are codes already.
            origin: None if the submit times are raw stamps: the first becomes 0. A number if they are
                relative to that stamp already.
            machine: the file's header.
            requested: where the requested times come from; None decides by what is there.
            dropped: rows that the caller left out.
            notes: what the caller read otherwise than written.
            locate: names the place of a row in errors; the row's number if None.
            edges: more dependencies, pairs of rows (predecessor, successor) of the table as it is given.

        Raises:
            TraceError: a value is wrong, `after` names no job, or a job comes after itself.
        """
        place = locate or (lambda row: f"{name}: row {row + 1}")
        for column in columns:
            if column not in (*COLUMNS, AFTER) and not column.endswith(check.ASKED):
                raise TraceError(f"{name}: no column is called {column!r}{nearest(column, (*COLUMNS, AFTER))}")
        for column in check.REQUIRED:
            if column not in columns:
                raise TraceError(f"{name}: column {column!r} is missing")
        table: dict[str, NDArray[Any]] = {}
        for column, rule in check.NUMBERS.items():
            if column in columns:
                table[column] = check.as_numbers(column, columns[column], place)
            else:
                table[column] = np.full(len(table["submit_time"]), rule.default)
        jobs = len(table["submit_time"])
        if jobs == 0:
            raise TraceError(f"{name}: there are no jobs")
        table["job_id"] = check.check_job_ids(columns.get("job_id", np.arange(1, jobs + 1)), place)
        names: dict[str, tuple[str, ...]] = {}
        for column in check.CATEGORIES:
            values = columns.get(column, np.full(jobs, -1))
            table[column], names[column] = check.as_codes(column, values, (labels or {}).get(column), place)
        check.check_job_classes(names["job_class"], table["job_class"], place)
        asked = [column for column in columns if column.endswith(check.ASKED)]
        for column in asked:
            table[column] = check.as_numbers(column, columns[column], place)
        for column, array in table.items():
            if len(array) != jobs:
                raise TraceError(f"{name}: column {column!r} has {counted(len(array), 'row')}; submit_time has {jobs}")
        for column in (*check.NUMBERS, *asked):
            check.check_numbers(column, table[column], place)
        table["gpus"] = check.check_gpus(table["gpus"], place)
        requested, more_notes = _settle_requested(table, requested, name)
        after = dependencies.as_edges(() if edges is None else edges, jobs, name)
        if AFTER in columns:
            words = cast(Iterable[object], columns[AFTER])
            named = resolve(words, table["job_id"], table["stage"], names["stage"], place)
            after = dependencies.ordered(np.concatenate((after, named)))
        dependencies.refuse_cycles(after, table["job_id"], place)
        if (np.diff(table["submit_time"]) < 0).any():
            order = np.argsort(table["submit_time"], kind="stable")
            table = {column: array[order] for column, array in table.items()}
            after = dependencies.selected(after, order, jobs)
        if origin is None:
            origin = float(table["submit_time"][0])
            table["submit_time"] = table["submit_time"] - origin
        asks = {column.removesuffix(check.ASKED): table.pop(column) for column in asked}
        return cls(
            **table,
            asks=asks,
            labels=names,
            name=name,
            origin=float(origin),
            machine=machine,
            requested=requested,
            dropped=tuple(dropped),
            notes=(*notes, *more_notes),
            after=after,
        )

    def __len__(self) -> int:
        return len(self.submit_time)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        rest = [f.name for f in fields(self) if f.name not in (*COLUMNS, AFTER, "asks")]
        if self.asks.keys() != other.asks.keys():
            return False
        return len(self) == len(other) and all(
            [getattr(self, name) == getattr(other, name) for name in rest]
            + [np.array_equal(getattr(self, c), getattr(other, c), equal_nan=True) for c in (*COLUMNS, AFTER)]
            + [np.array_equal(array, other.asks[name]) for name, array in self.asks.items()]
        )

    def __repr__(self) -> str:
        span = float(self.submit_time[-1] - self.submit_time[0])
        waits = f", {dependencies.said(len(self.after))}" if len(self.after) else ""
        jobs = counted(len(self), "job")
        return f"<Trace {self.name!r}: {jobs} over {span:g} s, requested times {self.requested}{waits}>"

    def __getitem__(self, rows: slice) -> "Trace":
        """Return the jobs of a slice in order, as `trace[i:j]`."""
        if not isinstance(rows, slice) or (rows.step or 1) < 1:
            raise TypeError("a Trace takes a forward slice, as in trace[10:20]")
        return self._take(rows, f"[{rows.start or 0}:{len(self) if rows.stop is None else rows.stop}]")

    def _take(self, rows: slice | NDArray[np.bool_] | NDArray[np.int64], what: str) -> "Trace":
        """Return the rows selected, at their own times; `what` names the selection."""
        parts: dict[str, Any] = {column: getattr(self, column)[rows] for column in COLUMNS}
        parts["asks"] = {name: array[rows] for name, array in self.asks.items()}
        parts[AFTER] = dependencies.selected(self.after, rows, len(self))
        if len(parts["submit_time"]) == 0:
            raise TraceError(f"{self.name}: {what} selects no job of {len(self)}")
        return replace(self, **parts)

    def where(self, rows: NDArray[np.bool_]) -> "Trace":
        """Return the jobs for which `rows`, shape (jobs,), is true, at their own times.

        A note counts the dependencies on jobs that are left out.
        """
        return self._keep(rows, "the selection")

    def _keep(self, rows: NDArray[np.bool_], what: str, why: str = "") -> "Trace":
        """Return the rows that are true, with a note where jobs left out had successors."""
        return replace(self._take(rows, what), notes=(*self.notes, *dependencies.lost_note(self.after, rows, why)))

    def with_after(self, edges: ArrayLike) -> "Trace":
        """Return the trace with these dependencies in place of its own, pairs of rows (predecessor, successor)."""
        after = dependencies.as_edges(edges, len(self), self.name)
        dependencies.refuse_cycles(after, self.job_id, lambda row: f"{self.name}: row {row + 1}")
        return replace(self, after=after)

    def window(self, start: int, n: int) -> "Trace":
        """Return `n` consecutive jobs from index `start` (0 is the first); all of them must exist."""
        if start < 0 or n < 1 or start + n > len(self):
            size = counted(n, "job")
            raise TraceError(f"{self.name}: a window of {size} from index {start} does not fit in {len(self)}")
        return self[start : start + n]

    def windows(self, n: int, starts: Iterable[int]) -> list["Trace"]:
        """Return the windows of `n` jobs that begin at `starts`."""
        return [self.window(int(start), n) for start in starts]

    def between(self, t0: float, t1: float) -> "Trace":
        """Return the jobs with t0 <= submit_time < t1, seconds."""
        first, last = np.searchsorted(self.submit_time, (t0, t1), side="left")
        return self._take(slice(int(first), int(last)), f"submit time from {t0:g} to {t1:g} s")

    def split(self, fraction: float) -> tuple["Trace", "Trace"]:
        """Return the first part, `fraction` of the jobs, and the rest; each holds at least one job."""
        if not 0.0 < fraction < 1.0:
            raise ConfigError(f"split: the fraction is {fraction:g}; it must lie between 0 and 1")
        # 0.7 * 10 is 7.000...: rounding first keeps the count that a reader expects
        cut = math.floor(round(fraction * len(self), 9))
        if cut == 0:
            raise TraceError(f"{self.name}: the first part of a split at {fraction:g} selects no job of {len(self)}")
        return self[:cut], self[cut:]

    def delayed(self, seconds: NDArray[np.float64]) -> "Trace":
        """Return the jobs submitted so much later, 0 or more, shape (jobs,). Deadlines stay at the same instants."""
        later = self.submit_time + seconds
        order = np.argsort(later, kind="stable")
        table = {column: getattr(self, column)[order] for column in COLUMNS}
        table |= {"submit_time": later[order], "deadline": np.maximum(self.deadline - seconds, 0.0)[order]}
        asks = {name: array[order] for name, array in self.asks.items()}
        return replace(self, **table, asks=asks)

    def scale_load(self, factor: float) -> "Trace":
        """Divide every gap between arrivals by `factor`; the first job keeps its submit time."""
        if not (math.isfinite(factor) and factor > 0.0):
            raise ConfigError(f"load factor {factor:g}: it must be above 0")
        first = self.submit_time[0]
        return replace(self, submit_time=first + (self.submit_time - first) / factor)

    def with_requested(self, mode: str, sigma: float | None = None, rng: np.random.Generator | None = None) -> "Trace":
        """Return the trace with other requested times.

        Args:
            mode: "given" leaves them; "exact" is the run time; "noisy" (or "noisy:SIGMA") multiplies it with
                a log-normal error; "tsafrir" gives round limits above it; "absent" removes them.
            sigma: of the log-normal error; 0.5 is off by a factor of about 1.6.
            rng: drawn from by "noisy" and "tsafrir"; a generator of seed 0 if None.
        """
        name, written = parse_mode(mode)
        sigma = written if sigma is None else sigma
        generator = rng if rng is not None else np.random.default_rng(0)
        if name == "given":
            return self
        notes = tuple(note for note in self.notes if not note.startswith(NOTE))
        if name == "exact":
            note = f"{NOTE}the run times themselves (a clairvoyant workload)"
            return replace(self, requested_time=self.run_time, requested="exact", notes=(*notes, note))
        if name == "absent":
            return replace(self, requested_time=np.full(len(self), np.nan), requested="absent", notes=notes)
        if name == "noisy":
            sigma = check_sigma(sigma)
            times, name = noisy(self.run_time, sigma, generator), f"noisy:{sigma:g}"
            note = f"{NOTE}run times with a log-normal error, sigma {sigma:g}"
        else:
            times = tsafrir(self.run_time, generator)
            note = f"{NOTE}model of Tsafrir et al. (2005), maximum {times.max():g} s"
        return replace(self, requested_time=times, requested=name, notes=(*notes, note))

    def with_deadlines(
        self,
        factors: tuple[float, float] = deadlines.GAVEL_FACTORS,
        *,
        of: deadlines.MultipleOf = "run_time",
        least_slack: float = 0.0,
        share: float = 1.0,
        rng: np.random.Generator | None = None,
    ) -> "Trace":
        """Return the trace with deadlines in place of its own: the job's time, times a factor drawn for it.

        The rule of Gavel (Narayanan et al., OSDI 2020), with a uniform draw; see `workloads.deadlines`.

        Args:
            factors: bounds of the draw, 1 to 1000; equal bounds are one factor for all.
            of: what is multiplied: seconds that the job runs, or that its user asked for.
            least_slack: seconds that a deadline leaves at least beyond that time.
            share: part of the jobs that get one, above 0; the others have none.
            rng: drawn from; a generator of seed 0 if None.

        Raises:
            ConfigError: a figure is out of bounds.
            TraceError: multiples of requested times are wanted, and there are none.
        """
        if of not in get_args(deadlines.MultipleOf):
            raise ConfigError(f"deadlines are multiples of run_time or of requested_time, not of {of!r}")
        if of == "requested_time" and self.requested == "absent":
            raise TraceError(f"{self.name}: deadlines cannot be multiples of requested times, for there are none")
        generator = rng if rng is not None else np.random.default_rng(0)
        due = deadlines.draw(getattr(self, of), factors, least_slack, share, generator)
        notes = tuple(note for note in self.notes if not note.startswith(deadlines.NOTE))
        said = deadlines.said(of, factors, least_slack, share)
        if not np.isnan(self.deadline).all() and notes == self.notes:
            said += f"; those of {self.name} are not looked at"
        return replace(self, deadline=due, notes=(*notes, said))

    def fit_to(self, gpus: int, strict: bool = False, gpu_memory_gib: float = math.inf) -> "Trace":
        """Leave out the jobs that a cluster of `gpus` GPUs could never run, and say so in `dropped`.

        They ask for more GPUs, or for more memory on one than it has. With `strict`, such a job is an error; so
        is a trace of which nothing is left.
        """
        fitting = self._left_out(self.gpus, gpus, "GPUs", strict)
        return fitting._left_out(fitting.gpu_memory_gib, gpu_memory_gib, "GiB of GPU memory", strict)

    def _left_out(self, asked: NDArray[np.float64], most: float, unit: str, strict: bool) -> "Trace":
        """Leave out the jobs that ask for more than `most`."""
        large = asked > most
        unit = unit.replace("GPUs", "GPU") if most == 1 else unit
        count = int(np.count_nonzero(large))
        if count == 0:
            return self
        jobs = np.flatnonzero(large)[:EXAMPLES]
        examples = tuple(f"job {self.job_id[i]} asks for {asked[i]:g}" for i in jobs)
        if strict or count == len(self):
            least = f"; the smallest needs {asked.min():g}" if count == len(self) else ""
            raise TraceError(
                f"{self.name}: {count} of {counted(len(self), 'job')} ask{'s' if count == 1 else ''} for more than "
                f"{most:g} {unit} ({examples[0]}){least}"
                f"; the largest needs {asked[large].max():g}"
            )
        entry = Dropped(f"asks for more than {most:g} {unit}", count, examples)
        kept = self._keep(~large, f"at most {most:g} {unit}", entry.reason)
        return replace(kept, dropped=(*self.dropped, entry))

    @property
    def losses(self) -> tuple[str, ...]:
        """What was left out of the trace, and what was read otherwise than written: a line for each."""
        return tuple(f"{self.name}: {text}" for text in (*self.dropped, *self.notes))

    def by_submit_time(self) -> "Trace":
        """Return the jobs in the order of their submit times; equal times keep their order."""
        if (np.diff(self.submit_time) >= 0.0).all():
            return self
        return self._take(np.argsort(self.submit_time, kind="stable"), "the order")

    def offered_load(self, gpus: float) -> float:
        """Return GPU-seconds asked for, over those that `gpus` GPUs have between first and last submission.

        Infinite when all jobs come at one instant.
        """
        span = float(self.submit_time[-1] - self.submit_time[0])
        return float(self.run_time @ self.gpus) / (gpus * span) if span > 0.0 else math.inf

    def save(self, path: str | Path) -> None:
        """Write the whole trace as NumPy (.npz) or Parquet (.parquet, extra `parquet`)."""
        from lepton_rl.workloads.storage import save_trace

        save_trace(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "Trace":
        """Read what `save` wrote, with every check."""
        from lepton_rl.workloads.storage import load_trace

        return load_trace(Path(path))


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view


def _settle_requested(
    table: dict[str, NDArray[Any]], requested: Requested | None, name: str
) -> tuple[Requested, tuple[str, ...]]:
    """Fill in missing requested times, and say where the column comes from."""
    times = table["requested_time"]
    missing = np.isnan(times)
    count = int(np.count_nonzero(missing))
    if requested == "absent":
        if count < len(times):
            raise TraceError(f"{name}: requested times are called absent, but column 'requested_time' has some")
        return requested, ()
    if count == 0:
        return requested or "given", ()
    table["requested_time"] = np.where(missing, table["run_time"], times)
    if count == len(times):
        return "exact", (CLAIRVOYANT,)
    return requested or "given", (partly_given(count),)
