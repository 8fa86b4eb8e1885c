"""Which jobs start after which: pairs of rows (predecessor, successor), made from column `after` and kept in order.

Everywhere here `edges` is an int64 array of shape (edges, 2), sorted, without duplicates.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lepton_rl.errors import TraceError
from lepton_rl.workloads.columns import Locate, fail

Edges = NDArray[np.int64]

AFTER = "after"
MAX_EDGES = 20_000_000
CYCLE_SHOWN = 5  # jobs of a cycle that are named


def no_edges() -> Edges:
    """Return the edges of a trace whose jobs wait for nothing."""
    return np.empty((0, 2), np.int64)


def ordered(edges: Edges) -> Edges:
    """Return the edges sorted by (predecessor, successor), each once."""
    if len(edges) == 0:
        return no_edges()
    edges = edges[np.lexsort((edges[:, 1], edges[:, 0]))]
    new: NDArray[np.bool_] = (edges[1:] != edges[:-1]).any(axis=1)
    kept: Edges = edges[np.append(True, new)]
    return kept


def as_edges(values: ArrayLike, jobs: int, name: str) -> Edges:
    """Return pairs of rows below `jobs` as edges; `name` begins the errors."""
    array = np.asarray(values)
    if array.size == 0:
        return no_edges()
    if array.ndim != 2 or array.shape[1] != 2 or array.dtype.kind not in "iu":
        raise TraceError(f"{name}: dependencies are pairs of whole numbers, (row of the predecessor, of the successor)")
    outside = (array < 0) | (array >= jobs)
    if outside.any():
        raise TraceError(f"{name}: a dependency names row {array[outside][0]}; the rows are 0 to {jobs - 1}")
    return ordered(array.astype(np.int64))


def check_count(edges: int, place: str) -> None:
    """Refuse more dependencies than memory is meant for."""
    if edges > MAX_EDGES:
        raise TraceError(
            f"{place}: more than {MAX_EDGES:,} dependencies; let one joining job, with a run time above 0, come after "
            "the first stage, and the jobs of the next after that one"
        )


def selected(edges: Edges, rows: slice | NDArray[np.bool_] | NDArray[np.int64], jobs: int) -> Edges:
    """Return the edges between the rows selected of `jobs`, by their numbers in the selection."""
    if len(edges) == 0:
        return no_edges()
    if isinstance(rows, slice) and (rows.step or 1) == 1:
        start, stop, _ = rows.indices(jobs)
        first, last = np.searchsorted(edges[:, 0], (start, stop))
        inside = edges[first:last]
        return inside[(inside[:, 1] >= start) & (inside[:, 1] < stop)] - start
    chosen = np.arange(jobs)[rows]
    new = np.full(jobs, -1, np.int64)
    new[chosen] = np.arange(len(chosen))
    inside = new[edges]
    return ordered(inside[(inside >= 0).all(axis=1)])


def bridged(edges: Edges, gone: NDArray[np.bool_], place: str) -> Edges:
    """Return the edges without the rows `gone`, whose successors come after their predecessors instead.

    Right for rows that take no time: they finish as soon as their predecessors have. There must be no cycle.
    """
    if not gone[edges].any():
        return edges
    before: dict[int, set[int]] = {}
    after: dict[int, set[int]] = {}
    for predecessor, successor in edges.tolist():
        after.setdefault(predecessor, set()).add(successor)
        before.setdefault(successor, set()).add(predecessor)
    for row in np.flatnonzero(gone).tolist():
        into, out = before.pop(row, set()), after.pop(row, set())
        check_count(len(into) * len(out), place)
        for predecessor in into:
            after[predecessor] = after[predecessor] - {row} | out
        for successor in out:
            before[successor] = before[successor] - {row} | into
    check_count(sum(map(len, after.values())), place)
    return as_edges([(row, successor) for row, rows in after.items() for successor in rows], len(gone), place)


def refuse_cycles(edges: Edges, job_id: NDArray[np.int64], locate: Locate) -> None:
    """Refuse jobs that come after themselves, directly or through others; names the jobs of one such cycle."""
    if len(edges) == 0 or (edges[:, 0] < edges[:, 1]).all():  # rows that only look back make no cycle
        return
    left = set(np.unique(edges).tolist()).difference(row for row, _ in _in_order(edges))
    if not left:
        return
    cycle = _cycle_in(edges, left)
    names = [str(job_id[row]) for row in cycle]
    if len(names) == 1:
        raise fail(locate(cycle[0]), AFTER, f"job {names[0]} comes after itself")
    more = f" after {len(names) - CYCLE_SHOWN} more jobs" if len(names) > CYCLE_SHOWN else ""
    chain = " after ".join(names[:CYCLE_SHOWN])
    raise fail(
        locate(cycle[0]), AFTER, f"job {chain}{more} after {names[0]}: a job cannot wait for itself through others"
    )


def chains(edges: Edges, run_time: NDArray[np.float64]) -> tuple[int, float]:
    """Return how many jobs the longest chain has, and the largest sum of run times along any chain, seconds.

    Both are 0 without edges; the two may belong to different chains.
    """
    if len(edges) == 0:
        return 0, 0.0
    rows = np.unique(edges)
    depth = np.ones(len(run_time), np.int64)
    seconds = run_time.copy()
    for row, successors in _in_order(edges):
        depth[successors] = np.maximum(depth[successors], depth[row] + 1)
        seconds[successors] = np.maximum(seconds[successors], seconds[row] + run_time[successors])
    return int(depth[rows].max()), float(seconds[rows].max())


def predecessor_lists(edges: Edges, jobs: int) -> list[list[int]]:
    """Return the rows that each of `jobs` rows comes after."""
    lists: list[list[int]] = [[] for _ in range(jobs)]
    for predecessor, successor in edges.tolist():
        lists[successor].append(predecessor)
    return lists


def edges_of_lists(lists: Sequence[Sequence[int] | None]) -> list[tuple[int, int]]:
    """Return the pairs of rows behind `predecessor_lists`."""
    return [(predecessor, row) for row, found in enumerate(lists) for predecessor in found or ()]


def said(edges: int) -> str:
    """Return a number of dependencies in words."""
    return f"{edges:,} {'dependency' if edges == 1 else 'dependencies'}"


def lost_note(edges: Edges, kept: NDArray[np.bool_], why: str = "") -> tuple[str, ...]:
    """Return the note that counts the edges from rows left out to rows kept; none where there are none."""
    lost = int(np.count_nonzero(~kept[edges[:, 0]] & kept[edges[:, 1]]))
    reason = f" ({why})" if why else ""
    return (f"{said(lost)} on jobs that were left out{reason}: they count as finished",) if lost else ()


def _in_order(edges: Edges) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Yield rows and their successors, each row after its predecessors (Kahn 1962); none on or behind a cycle."""
    rows = int(edges.max()) + 1
    first = np.searchsorted(edges[:, 0], np.arange(rows + 1))
    waits = np.bincount(edges[:, 1], minlength=rows)
    starts = np.unique(edges[:, 0])
    ready: list[int] = starts[waits[starts] == 0].tolist()
    while ready:
        row = ready.pop()
        successors = edges[first[row] : first[row + 1], 1]
        yield row, successors
        waits[successors] -= 1
        ready.extend(successors[waits[successors] == 0].tolist())


def _cycle_in(edges: Edges, left: set[int]) -> list[int]:
    """Return the rows of one cycle, each after the next, the lowest first.

    Every row of `left` has a predecessor in it.
    """
    before = {successor: predecessor for predecessor, successor in edges.tolist() if predecessor in left}
    row = min(left)
    seen: dict[int, int] = {}
    while row not in seen:
        seen[row] = len(seen)
        row = before[row]
    cycle = list(seen)[seen[row] :]
    lowest = cycle.index(min(cycle))
    return cycle[lowest:] + cycle[:lowest]
