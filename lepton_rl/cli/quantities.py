"""Amounts as people write them on a command line: durations, sizes of memory, moments. Errors name the option."""

import re
import time
from datetime import datetime

import typer

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d|w)?")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*(mib|gib|tib|mb|gb|tb|m|g|t)?", re.IGNORECASE)
_LONGEST = 30  # characters; more would be beyond every amount there is
_MIB = {"m": 1.0, "g": 1024.0, "t": 1024.0**2}


def seconds(text: str, option: str) -> float:
    """Return a duration as 90, 90s, 30m, 2h, 1d or 1h30m."""
    parts = _DURATION.findall(text.strip()) if len(text) < _LONGEST else []
    if not parts or "".join(number + unit for number, unit in parts) != text.strip():
        raise typer.BadParameter(f"{text!r} is no duration; write it as 90s, 30m, 2h, 1h30m or 1d", param_hint=option)
    total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if total <= 0:
        raise typer.BadParameter(f"a duration must be above 0, not {text!r}", param_hint=option)
    return total


def mebibytes(text: str, option: str) -> int:
    """Return an amount of memory as 512MiB, 20GiB or 20G."""
    found = _MEMORY.fullmatch(text.strip()) if len(text) < _LONGEST else None
    if found is None or float(found.group(1)) <= 0:
        raise typer.BadParameter(f"{text!r} is no amount of memory; write it as 512MiB or 20GiB", param_hint=option)
    if found.group(2) is None:
        raise typer.BadParameter(
            f"{text!r} is no amount of memory without a unit; write it as {text.strip()}GiB or {text.strip()}MiB",
            param_hint=option,
        )
    unit = found.group(2).lower()
    decimal = unit in ("mb", "gb", "tb")
    mib = float(found.group(1)) * _MIB[unit[0]]
    if decimal:
        mib *= {"m": 1e6, "g": 1e9, "t": 1e12}[unit[0]] / (_MIB[unit[0]] * 1024.0**2)
    return max(1, round(mib))


def moment(text: str, option: str) -> float:
    """Return Unix seconds of +2h (from now), 18:30 (the next one) or 2026-12-01T08:00 (local time)."""
    if text.startswith("+"):
        return time.time() + seconds(text[1:], option)
    now = datetime.now()
    try:
        if re.fullmatch(r"\d{1,2}:\d{2}", text):
            clock = datetime.strptime(text, "%H:%M").time()
            found = datetime.combine(now.date(), clock).timestamp()
            return found if found > now.timestamp() else found + 86_400.0
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        wanted = f"{text!r} is no time; write it as +2h, 18:30 or 2026-12-01T08:00"
        raise typer.BadParameter(wanted, param_hint=option) from None


def ago(text: str, option: str) -> float:
    """Return the Unix seconds of so long ago: 1h, 7d."""
    return time.time() - seconds(text, option)


def share(text: str, option: str) -> float:
    """Return a share as 10% or 0.1."""
    number = text.strip().removesuffix("%")
    try:
        found = float(number) / (100.0 if text.strip().endswith("%") else 1.0)
    except ValueError:
        found = 0.0
    if not 0 < found < 1:
        raise typer.BadParameter(f"{text!r} is no share between 0 and 1; write it as 10% or 0.1", param_hint=option)
    return found
