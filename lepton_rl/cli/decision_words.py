"""A node's decisions and its audit log in sentences for people."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from lepton_rl.core.actions import Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.node.actions import from_text
from lepton_rl.node.printable import printable


def decision_line(decision: Mapping[str, Any], names: Mapping[int, str]) -> str:
    """Return one decision as a line: when, who, how long it took, and what is to be done.

    Args:
        decision: as the verb `decisions` answers.
        names: of jobs by their numbers, as far as they are known.
    """
    when, detail = time.strftime("%m-%d %H:%M:%S", time.localtime(decision["time"])), decision["detail"]
    acts = [action_words(text, names) for text in detail["actions"]]
    more = detail.get("count", len(acts)) - len(acts)
    said = "; ".join([*acts, *([f"and {more} more"] if more > 0 else [])]) or "nothing is done"
    why = f"; the fallback decided: {decision['fallback_reason']}" if decision["fallback_reason"] else ""
    return f"{when} {detail['by']} ({decision['decision_s'] * 1e6:.0f} µs): {said}{why}"


def audit_line(entry: Mapping[str, Any]) -> str:
    """Return one entry of the audit log, as the verb `audit` answers, as a line: when, who, what, and its outcome."""
    when = time.strftime("%m-%d %H:%M:%S", time.localtime(entry["time"]))
    what = " ".join(part for part in (entry["verb"].replace("_", " "), entry["target"]) if part)
    return f"{when} {printable(entry['user'])}: {printable(what)}: {printable(entry['outcome'])}"


def action_words(text: str, names: Mapping[int, str]) -> str:
    """Return an action, given by the text that the journal keeps, as a sentence: "job 17 (train) starts on GPU 0"."""
    match from_text(text):
        case Start(job, gpus):
            return f"{_job(job, names)} starts {'' if gpus is None else f'on {gpus_named(gpus)}'}".rstrip()
        case Migrate(job, gpus):
            return f"{_job(job, names)} moves {'' if gpus is None else f'to {gpus_named(gpus)}'}".rstrip()
        case Preempt(job):
            return f"{_job(job, names)} is stopped for others and waits again"
        case SetPowerLimit(gpu, watts):
            return f"GPU {gpu} goes back to its own power limit" if watts is None else f"GPU {gpu} may draw {watts:g} W"
    return text


def gpus_named(numbers: Sequence[int]) -> str:
    """Return GPUs by their numbers: "GPU 3", "GPUs 0, 1"."""
    return f"GPU{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"


def _job(number: int, names: Mapping[int, str]) -> str:
    name = names.get(number)
    return f"job {number} ({printable(name)})" if name else f"job {number}"
