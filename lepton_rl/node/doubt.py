"""Why a policy is not to be trusted with a decision: it has not seen the like, or it failed."""

from lepton_rl.core.policy import Policy
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.errors import LeptonError

_MOST_LETTERS = 300


def doubt_of(policy: Policy, snapshot: Snapshot) -> str:
    """Return what a policy has not seen in its training, in a sentence; nothing where it knows no bounds."""
    ranged = getattr(policy, "out_of_range", None)
    return "" if ranged is None else str(ranged(snapshot))


def in_one_line(error: BaseException) -> str:
    """Return what went wrong in a policy, however it says so, in one short line."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "it cannot even say how"
    return (text if isinstance(error, LeptonError) else f"{type(error).__name__}: {text}")[:_MOST_LETTERS]
