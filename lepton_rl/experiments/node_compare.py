"""The acting policy of a node beside the one on trial: what was counted live, what its jobs came to, and a simulation.

Only the simulation puts both on the same jobs. It counts on the exported trace, by the rules of docs/simulator.md.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.slowdown import bounded_slowdown
from lepton_rl.errors import NodeError
from lepton_rl.experiments.node_replay import Replay, read_about, replay
from lepton_rl.experiments.statistics import block_length, estimate
from lepton_rl.node.journal import Journal
from lepton_rl.node.paths import JOURNAL

Interval = dict[str, float | None]
_ALL = 1 << 62  # decisions: as many as there are


def compare(state_dir: Path, trial: str | None = None, since: float = 0.0) -> dict[str, Any]:
    """Return figures of both policies, plain data with intervals.

    Args:
        state_dir: of the node.
        trial: the other policy; the one that the daemon has on trial if None.
        since: Unix seconds.

    Raises:
        NodeError: no policy is or was on trial, and none is named.
    """
    about = read_about(state_dir)
    other = trial if trial is not None else about.get("trial")
    if other is None:
        raise NodeError("no policy is on trial here; name one: lepton-rl node compare NAME|BUNDLE")
    both = [replay(state_dir, policy, since=since) for policy in (None, other)]
    slowdowns = [bounded_slowdown(each.wait, each.history.trace.run_time) for each in both]
    found: dict[str, Any] = {
        "jobs": len(both[0].history.trace),
        "simulated": {
            each.policy: _figures(each.wait, slowdown) for each, slowdown in zip(both, slowdowns, strict=True)
        },
        "difference": {
            "slowdown": _interval(slowdowns[1] - slowdowns[0]),
            "wait_s": _interval(both[1].wait - both[0].wait),
        },
    }
    if about.get("canary_share"):
        found["canary"] = _groups(both[0], _deciders(state_dir, max(since, float(about.get("trial_since", 0.0)))))
    return found


def _deciders(state_dir: Path, since: float) -> dict[int, str]:
    """Who decided on each job that started since a time, "acting" or "canary"; those of the fallback are not there."""
    with Journal(state_dir / JOURNAL, read_only=True) as journal:
        decisions = journal.ledger.decisions(since, last=_ALL)
        began = {record.id: record.start_time for record in journal.jobs(since=since)}
    found: dict[int, str] = {}
    for decision in decisions:
        for role, jobs in decision.detail.get("started", {}).items():
            for job in jobs:
                start = began.get(int(job))
                if start is not None and decision.time <= start:  # the last one counts: a start may be put off
                    found[int(job)] = str(role)
    return found


def _groups(real: Replay, deciders: dict[int, str]) -> dict[str, Any]:
    """What the jobs that each policy started came to on the node."""
    trace = real.history.trace
    by = np.array([deciders.get(int(job), "") for job in trace.job_id])
    slowdown = bounded_slowdown(real.real_wait, trace.run_time)
    return {
        name: _figures(real.real_wait[by == name], slowdown[by == name]) | {"jobs": int((by == name).sum())}
        for name in ("acting", "canary")
        if (by == name).any()
    }


def _figures(wait: NDArray[np.float64], slowdown: NDArray[np.float64]) -> dict[str, Any]:
    return {"mean_slowdown": _interval(slowdown), "mean_wait_s": _interval(wait)}


def _interval(values: NDArray[np.float64]) -> Interval:
    """The mean and its 95 % interval; neighbouring jobs meet the same queue, so that blocks of them are resampled."""
    found = estimate(values, block_length(len(values)))
    return {"mean": found.mean, "low": found.low, "high": found.high}
