"""The one tree of errors that lepton_rl raises on purpose.

Every message is a sentence for the person who caused it: what was wrong, where, and what would be right.
The command line prints it on standard error and exits with code 2.
"""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any


class LeptonError(Exception):
    """Base of every error that lepton_rl raises on purpose."""


class TraceError(LeptonError):
    """A workload file or job table cannot be used as it is."""


class ConfigError(LeptonError):
    """An experiment file, an override or a setting is wrong."""


class UnknownPolicy(LeptonError):
    """No policy has the name that was asked for."""


class IllegalAction(LeptonError):
    """A policy asked for something that the cluster cannot do now."""


class BundleError(LeptonError):
    """A policy bundle is unreadable or does not fit the cluster."""


class MissingExtra(LeptonError):
    """An optional dependency is not installed."""


class NodeError(LeptonError):
    """A node cannot start, cannot be reached, or refuses what it was asked."""


class ConnectionLost(NodeError):
    """Who was called has hung up or does not answer in time: nothing more can come over this connection."""


class NotYours(NodeError):
    """A job is another user's."""


class JobError(LeptonError):
    """A job for a node cannot be accepted, found or started as it was asked for."""


class JournalError(LeptonError):
    """The journal of a node cannot be opened, read or restored."""


class JournalFull(JournalError):
    """A change could not be written and nothing of it was; the journal works again once there is space."""


class IllegalTransition(JournalError):
    """A job cannot go from the state that it is in to the one that was asked for."""


def missing_extra(package: str, extra: str) -> MissingExtra:
    """Return the error that names the extra holding `package`."""
    return MissingExtra(f"{package} is not installed; install it with: pip install 'lepton-rl[{extra}]'")


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return "; did you mean 'x'?" for the closest known name, or an empty string where none is as like as `cutoff`."""
    as_written = {word.lower(): word for word in known}
    close = get_close_matches(name.lower(), list(as_written), n=1, cutoff=cutoff)
    return f"; did you mean {as_written[close[0]]!r}?" if close else ""


_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping of `key: value` lines",
    "model_type": "a mapping of `key: value` lines",
    "model_attributes_type": "a mapping of `key: value` lines",
}


def in_words(problem: Mapping[str, Any]) -> str:
    """Return one of pydantic's error details as the end of a sentence: "must be a whole number, not 'x'"."""
    kind, given, context = problem["type"], shown(problem["input"]), problem.get("ctx", {})
    message = str(problem["msg"])
    if kind == "missing":
        return "is missing"
    if kind in _EXPECTED:
        return f"must be {_EXPECTED[kind]}, not {given}"
    if kind == "literal_error":
        choices = str(context["expected"])
        known = [word.strip("'") for word in choices.replace(" or ", ", ").split(", ")]
        return f"{given} is not one of {choices}{nearest(str(problem['input']), known)}"
    if kind in ("too_short", "too_long"):
        bound = "at least" if kind == "too_short" else "at most"
        length = context["min_length" if kind == "too_short" else "max_length"]
        return f"must have {bound} {length} {'entry' if length == 1 else 'entries'}, not {context['actual_length']}"
    if kind == "string_too_short":
        return "must not be empty"
    if message.startswith(("Value error, ", "Assertion failed, ")):
        return message.partition(", ")[2].rstrip(".")
    message = message.replace("Input should", "must").replace("String should", "must")
    return f"{message[:1].lower()}{message[1:]}, not {given}"


def counted(count: float, what: str) -> str:
    """Return a number of things: "1 job", "1,024 jobs", "0.5 GPUs"."""
    number = f"{count:g}" if count % 1 else f"{int(count):,}"
    return f"{number} {what}{'' if count == 1 else 's'}"


def shown(value: object) -> str:
    """Return a value as a person wrote it, short enough for a sentence."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    text = "nothing" if value is None else repr(str(value)) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
