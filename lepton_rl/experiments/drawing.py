"""What all pictures have in common: their file, their colours, their frame, the unit of their time."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lepton_rl.errors import ConfigError, missing_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEARNED = "#c2410c"
HEURISTIC = "#1e5a8a"
GRID = "#e5e7eb"
MUTED = "#6b7280"
# Okabe and Ito's colours, which colour-blind readers can tell apart, then the same as dashes.
_LINES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#8c6d31", "#000000", "#7f7f7f")
_DASHES = ("-", "--", ":")
_MARKERS = ("o", "s", "^")
_UNITS = ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))


def new_figure(width: float, height: float) -> "Figure":
    """Return an empty figure, inches.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise missing_extra("matplotlib", "report") from None
    return Figure(figsize=(width, height), layout="constrained")


def check_picture(path: Path) -> None:
    """Refuse a picture that could not be written, before anything runs.

    Raises:
        ConfigError: no picture format has this suffix.
        MissingExtra: matplotlib is not installed.
    """
    suffix = _format(path)
    if suffix not in new_figure(1.0, 1.0).canvas.get_supported_filetypes():
        raise ConfigError(f"{path}: no picture format is called {suffix!r}; use .png, .svg or .pdf")


def save_picture(figure: "Figure", path: Path) -> None:
    """Write a picture; its format follows from the suffix, and is PNG without one.

    Raises:
        ConfigError: no picture can be written so.
    """
    check_picture(path)
    try:
        figure.savefig(path, dpi=130, format=_format(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None


def _format(path: Path) -> str:
    return path.suffix.removeprefix(".").lower() or "png"


def in_thousands(axes: "Axes") -> None:
    """Write the numbers of both axes in full, with commas."""
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,g}")


def bare(axes: "Axes") -> None:
    """Leave of the frame the line below alone."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    axes.tick_params(length=0, labelsize=9)
    axes.set_axisbelow(True)


def line_style(index: int, learned: bool = False) -> dict[str, Any]:
    """Return colour and dash of the `index`-th heuristic, or of the `index`-th learned policy."""
    if learned:
        return {"color": LEARNED, "linestyle": _DASHES[index % len(_DASHES)], "linewidth": 2.4, "zorder": 5}
    dash = _DASHES[index // len(_LINES) % len(_DASHES)]
    return {"color": _LINES[index % len(_LINES)], "linestyle": dash, "linewidth": 1.3}


def marker_of(style: dict[str, Any]) -> str:
    """Return the mark that stands for a line's dash where there is no line."""
    return _MARKERS[_DASHES.index(style["linestyle"])]


def time_unit(seconds: float) -> tuple[float, str]:
    """Return the largest unit, in seconds, of which a span has at least three, and its name."""
    return next((unit for unit in _UNITS if seconds >= 3 * unit[0]), (1.0, "seconds"))
