"""Checks and conversions for one column of a job table.

Every function raises one TraceError sentence that names the place, the column and the value. `locate(i)`
turns the index of a row into the place a reader of the file would look for: "jobs.csv:12", "trace: row 3".
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton_rl.errors import TraceError, nearest

Locate = Callable[[int], str]

MAX_SECONDS = 1e12  # about 30,000 years: sums over a trace stay far from overflow
MAX_GPUS = 1e6
SHARE_STEP = 0.001


@dataclass(frozen=True)
class Rule:
    """What the numbers of a column may be.

    Attributes:
        above: the bound below; itself excluded if `strict`.
        upto: the largest value.
        default: stands for a missing column; None makes the column required.
        may_be_missing: whether NaN is allowed and means "no figure".
    """

    above: float
    upto: float
    strict: bool = True
    default: float | None = None
    may_be_missing: bool = False


NUMBERS = {
    "submit_time": Rule(0.0, MAX_SECONDS, strict=False),
    "run_time": Rule(0.0, MAX_SECONDS),
    "gpus": Rule(0.0, MAX_GPUS),
    "requested_time": Rule(0.0, MAX_SECONDS, default=np.nan, may_be_missing=True),
    "gpu_memory_gib": Rule(0.0, 1e6, default=np.nan, may_be_missing=True),
    "compute_intensity": Rule(0.0, 1e12, strict=False, default=1.0),
    "time_sensitivity": Rule(0.0, 1e12, strict=False, default=1.0),
    "deadline": Rule(0.0, MAX_SECONDS, default=np.nan, may_be_missing=True),
    "gpu_utilization": Rule(0.0, 1.0, strict=False, default=np.nan, may_be_missing=True),
}
CATEGORIES = ("queue", "user", "project", "job_class", "gpu_type", "stage")
ASKED = "_per_gpu"
"""Ending of the columns that say what a job takes beside each of its GPUs: cpu_cores_per_gpu, ram_gib_per_gpu, ..."""
ASKED_RULE = Rule(0.0, 1e6, strict=False)
COLUMNS = ("job_id", *NUMBERS, *CATEGORIES)
REQUIRED = tuple(name for name, rule in NUMBERS.items() if rule.default is None)


def fail(place: str, column: str, problem: str) -> TraceError:
    """Return the error for one bad field."""
    return TraceError(f"{place}: column {column!r}: {problem}")


def as_numbers(column: str, values: ArrayLike, locate: Locate) -> NDArray[np.float64]:
    """Convert to float64, one dimension; NaN and infinity pass."""
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        for i, value in enumerate(np.asarray(values, dtype=object).ravel()):
            try:
                float(value)
            except (TypeError, ValueError):
                raise fail(locate(i), column, f"{value!r} is not a number") from None
        raise TraceError(f"column {column!r} is not a list of numbers") from None
    if array.ndim != 1:
        raise TraceError(f"column {column!r} has {array.ndim} dimensions; a column has 1")
    return array


def check_numbers(column: str, array: NDArray[np.float64], locate: Locate) -> None:
    """Hold a column to its Rule."""
    rule = ASKED_RULE if column.endswith(ASKED) else NUMBERS[column]
    missing = np.isnan(array)
    if missing.any() and not rule.may_be_missing:
        raise fail(locate(int(missing.argmax())), column, "no number is given")
    # NaN compares false both ways: a missing figure passes both tests
    low = array <= rule.above if rule.strict else array < rule.above
    if low.any():
        row = int(low.argmax())
        bound = "is not above" if rule.strict else "is below"
        raise fail(locate(row), column, f"{array[row]:g} {bound} {rule.above:g}")
    high = array > rule.upto
    if high.any():
        row = int(high.argmax())
        raise fail(locate(row), column, f"{array[row]:g} is above {rule.upto:g}, the largest value allowed")


def check_gpus(array: NDArray[np.float64], locate: Locate) -> NDArray[np.float64]:
    """Return whole numbers and exact thousandths; anything else is an error."""
    whole = array == np.rint(array)
    if whole.all():
        return array
    thousandths = np.rint(array / SHARE_STEP)
    share = (array < 1.0) & (thousandths > 0) & (np.abs(array - thousandths * SHARE_STEP) < 1e-9)
    bad = ~(whole | share)
    if bad.any():
        row = int(bad.argmax())
        raise fail(
            locate(row),
            "gpus",
            f"{array[row]:g} is neither a whole number nor a share below 1 in steps of {SHARE_STEP}",
        )
    return np.where(whole, array, thousandths / 1000.0)


def check_job_ids(values: ArrayLike, locate: Locate) -> NDArray[np.int64]:
    """Return the ids as int64; an id is a whole number."""
    array = np.asarray(values)
    if array.dtype.kind in "iu" and array.ndim == 1:
        return array.astype(np.int64)
    numbers = as_numbers("job_id", values, locate)
    bad = ~(np.abs(numbers) < 2.0**53) | (numbers != np.rint(numbers))
    if bad.any():
        row = int(bad.argmax())
        raise fail(locate(row), "job_id", f"{numbers[row]:g} is not a whole number")
    return numbers.astype(np.int64)


def check_job_classes(names: Sequence[str], codes: NDArray[np.int32], locate: Locate) -> None:
    """Refuse classes of job for which GPU types have no speed."""
    if not names:
        return
    from lepton_rl.core.hardware.speed import JOB_CLASSES  # with numba, which most traces do not need

    for code, name in enumerate(names):
        if name not in JOB_CLASSES:
            row = int((codes == code).argmax())
            close = nearest(name, JOB_CLASSES)
            raise fail(locate(row), "job_class", f"there is no class {name!r}{close}; known: {', '.join(JOB_CLASSES)}")


def as_codes(
    column: str, values: ArrayLike, labels: Sequence[str] | None, locate: Locate
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Turn names or numbers into int32 codes and their labels; -1 is unknown.

    With `labels` the values are codes already. Without, an empty name or a negative number is unknown and the
    labels are sorted.
    """
    array = np.asarray(values)
    if array.ndim != 1:
        raise TraceError(f"column {column!r} has {array.ndim} dimensions; a column has 1")
    if labels is not None:
        if array.dtype.kind not in "iu":
            raise TraceError(f"column {column!r} has labels, so its values must be whole numbers")
        bad = (array < -1) | (array >= len(labels))
        if bad.any():
            row = int(bad.argmax())
            raise fail(locate(row), column, f"code {array[row]} has no label")
        return array.astype(np.int32), tuple(labels)
    if array.dtype.kind in "iu":
        return _codes_of_integers(array.astype(np.int64))
    distinct, inverse = np.unique(array.astype(str), return_inverse=True)
    codes = inverse.astype(np.int32)
    if len(distinct) and distinct[0] == "":
        codes -= 1
        distinct = distinct[1:]
    return codes, tuple(str(name) for name in distinct)


def _codes_of_integers(array: NDArray[np.int64]) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    top = int(array.max(initial=-1))
    if top < 0:
        return np.full(len(array), -1, dtype=np.int32), ()
    if top > 10_000_000:  # a table by value would be larger than the trace
        distinct, inverse = np.unique(array, return_inverse=True)
        unknown = int(np.count_nonzero(distinct < 0))
        codes = np.maximum(inverse - unknown, -1).astype(np.int32)
        return codes, tuple(str(value) for value in distinct[unknown:])
    known = array >= 0
    used = np.zeros(top + 1, dtype=np.bool_)
    used[array[known]] = True
    code_of = np.cumsum(used, dtype=np.int32) - np.int32(1)
    codes = np.full(len(array), -1, dtype=np.int32)
    codes[known] = code_of[array[known]]
    return codes, tuple(str(value) for value in np.flatnonzero(used))
