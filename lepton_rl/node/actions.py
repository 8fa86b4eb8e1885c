"""Actions as a node can carry them out, in plain numbers or refused, and as the text that its journal keeps."""

import ast
import math
from collections.abc import Sequence
from dataclasses import fields
from reprlib import Repr

import numpy as np

from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.errors import IllegalAction

_MOST_NUMBER = 1 << 53
_KINDS: dict[str, type[Action]] = {kind.__name__: kind for kind in (Start, Preempt, Migrate, SetPowerLimit)}
_SHORT = Repr()
_SHORT.maxother = 60


def plain(action: object) -> Action:
    """Return an action with Python's own numbers in it: NumPy's cannot be written down, nor name a folder.

    Raises:
        IllegalAction: it is no action, or names jobs, GPUs or watts by something that is no number.
    """
    if not isinstance(action, Action):
        raise IllegalAction(f"a {type(action).__name__} is not an action; use Start, Preempt, Migrate or SetPowerLimit")
    if isinstance(action, SetPowerLimit):
        return SetPowerLimit(_number(action.gpu, "GPU"), _watts(action.watts))
    job = _number(action.job, "job")
    if isinstance(action, Preempt):
        return Preempt(job)
    gpus = None if action.gpus is None else _gpus(job, action.gpus)
    return Migrate(job, gpus) if isinstance(action, Migrate) else Start(job, gpus)


def shortly(action: object) -> str:
    """Return an action as text of bounded length, whatever is in it."""
    if not isinstance(action, Action):
        return type(action).__name__
    return f"{type(action).__name__}({', '.join(_SHORT.repr(getattr(action, part.name)) for part in fields(action))})"


def from_text(text: str) -> Action | None:
    """Return the action that has this text, as the journal keeps it; None where none has."""
    try:
        call = ast.parse(text, mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
            return None
        given = {str(part.arg): ast.literal_eval(part.value) for part in call.keywords}
        return plain(_KINDS[call.func.id](**given))
    except (SyntaxError, ValueError, KeyError, TypeError, RecursionError, MemoryError, IllegalAction):
        return None


def _number(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < _MOST_NUMBER:
        raise IllegalAction(f"an action names a {what} by its number, not {_SHORT.repr(value)}")
    return int(value)


def _gpus(job: int, given: object) -> tuple[int, ...]:
    if isinstance(given, str | bytes) or not isinstance(given, Sequence | np.ndarray):
        raise IllegalAction(f"job {job}: GPUs are named by whole numbers, as in (0, 1), not {_SHORT.repr(given)}")
    return tuple(_number(gpu, "GPU") for gpu in given)


def _watts(given: object) -> float | None:
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int | float | np.integer | np.floating):
        raise IllegalAction(f"a power limit is a number of watts, not {_SHORT.repr(given)}")
    watts = float(given)
    if not math.isfinite(watts):
        raise IllegalAction(f"a power limit of {watts} W is no number of watts")
    return watts
