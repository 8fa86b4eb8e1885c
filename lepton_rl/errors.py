"""The one tree of errors that lepton_rl raises on purpose.

Every message is a sentence for the person who caused it: what was wrong, where, and what would be right.
The command line prints it on standard error and exits with code 2.
"""

from collections.abc import Iterable
from difflib import get_close_matches


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


def missing_extra(package: str, extra: str) -> MissingExtra:
    """Return the error that names the extra holding `package`."""
    return MissingExtra(f"{package} is not installed; install it with: pip install 'lepton-rl[{extra}]'")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the closest known name, or an empty string."""
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
