"""Durations in words and in columns."""

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def spelled(seconds: float) -> str:
    """Return a duration in words that lose nothing: 3 h, 1 h 30 min, 0.5 s."""
    parts, left = [], round(seconds, 3)
    for length, unit in _UNITS[:-1]:
        whole = int(left // length)
        if whole:
            parts.append(f"{whole} {unit}")
            left = round(left - whole * length, 3)
    if left or not parts:
        parts.append(f"{left:g} s")
    return " ".join(parts)


def lasting(duration: float | None) -> str:
    """Return a duration for people: 42 s, 3:20, 2:05:00, 3 d 4 h."""
    if duration is None:
        return "-"
    whole = int(max(0.0, duration))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 86_400:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
