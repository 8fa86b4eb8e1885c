"""Column `after` of a job table: which jobs each one comes after, by id or by stage."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import TraceError, counted, nearest
from lepton_rl.workloads.columns import Locate, fail
from lepton_rl.workloads.dependencies import AFTER, Edges, check_count, no_edges, ordered

STAGE = "stage:"
"""How a word of column `after` begins that means all jobs of a stage."""
_COMPARED = 10_000  # job ids that an unknown one is compared with: more would take seconds


def resolve(
    values: Iterable[object],
    job_id: NDArray[np.int64],
    stage: NDArray[np.int32],
    stages: Sequence[str],
    locate: Locate,
) -> Edges:
    """Return the edges that column `after` describes.

    Args:
        values: of each row, the jobs that it comes after: text, "3|7|stage:prepare", or a sequence of such words or
            of job ids; None, NaN and an empty text are none.
        job_id: shape (rows,).
        stage: codes into `stages`, -1 is none, shape (rows,).
        stages: names.
        locate: names the place of a row in errors.

    Raises:
        TraceError: no job has the id or stage, or more than one has the id.
    """
    words = [_words(value) for value in values]
    if len(words) != len(job_id):
        raise TraceError(f"column {AFTER!r} has {counted(len(words), 'row')}; submit_time has {len(job_id)}")
    if not any(words):
        return no_edges()
    find = _finder(job_id, stage, stages)
    predecessors: list[NDArray[np.int64]] = []
    successors: list[int] = []
    total = 0
    for row, row_words in enumerate(words):
        for word in row_words:
            try:
                found = find(word)
            except TraceError as error:
                raise fail(locate(row), AFTER, str(error)) from None
            total += len(found)
            check_count(total, locate(row))
            predecessors.append(found)
            successors.append(row)
    ends = np.repeat(np.array(successors, np.int64), [len(found) for found in predecessors])
    return ordered(np.column_stack((np.concatenate(predecessors), ends)))


def _words(value: object) -> list[object]:
    """Return what one field of column `after` names, job ids and stages."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, str):
        return [word.strip() for word in value.split("|")] if value.strip() else []
    if isinstance(value, Iterable):
        return [word for part in value for word in _words(part)]
    return [value]


def _finder(
    job_id: NDArray[np.int64], stage: NDArray[np.int32], stages: Sequence[str]
) -> Callable[[object], NDArray[np.int64]]:
    """Return what finds the rows behind a word of column `after`."""
    ids = job_id.tolist()
    row_of = {job: row for row, job in enumerate(ids)}
    repeated = {job for job, times in Counter(ids).items() if times > 1} if len(row_of) < len(ids) else set()
    by_stage = {name: np.flatnonzero(stage == code) for code, name in enumerate(stages)}

    def find(word: object) -> NDArray[np.int64]:
        if isinstance(word, str) and word.startswith(STAGE):
            name = word.removeprefix(STAGE).strip()
            if name not in by_stage:
                raise TraceError(f"no job is of stage {name!r}{nearest(name, stages)}")
            return by_stage[name]
        job = _whole(word)
        if job is None or job not in row_of:
            known = [f"{STAGE}{name}" for name in stages] if job is None else map(str, ids[:_COMPARED])
            hint = nearest(str(word), known, cutoff=0.5)
            kind = "is neither a job_id nor stage:NAME" if job is None else "is the job_id of no job"
            raise TraceError(f"{str(word)!r} {kind}{hint}")
        if job in repeated:
            raise TraceError(f"more than one job has the job_id {job}")
        return np.array([row_of[job]], np.int64)

    return find


def _whole(word: object) -> int | None:
    """Return a job id, or None for what is no whole number."""
    if isinstance(word, int | np.integer):
        return int(word)
    try:
        return int(str(word))
    except ValueError:
        pass
    try:
        number = float(str(word))
    except ValueError:
        return None
    return int(number) if number.is_integer() else None
