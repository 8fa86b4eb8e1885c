"""One HTML file that holds everything, pictures included: nothing of it is fetched from elsewhere."""

import base64
import io
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from lepton_rl.errors import missing_extra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE_FILE = "report.html"
DPI = 130
"""Of pictures of many cells; others are drawn as lines."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a page, with what is said of it."""

    title: str
    note: str
    source: str  # data: address


def svg(title: str, note: str, figure: "Figure") -> Picture:
    """Return a figure as lines and text."""
    return Picture(title, note, _address(figure, "svg", "svg+xml", transparent=True))


def png(title: str, note: str, figure: "Figure") -> Picture:
    """Return a figure of many cells."""
    return Picture(title, note, _address(figure, "png", "png", dpi=DPI))


def render(template: str, **content: Any) -> str:
    """Return the page that a template of this package makes of its content, which is text and never markup.

    Raises:
        MissingExtra: Jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, FunctionLoader
    except ImportError:
        raise missing_extra("Jinja2", "report") from None
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_source))
    return environment.get_template(template).render(content)


def check_can_draw() -> None:
    """Name what is missing before anything runs.

    Raises:
        MissingExtra: matplotlib or Jinja2 is not installed.
    """
    for module, package in (("matplotlib", "matplotlib"), ("jinja2", "Jinja2")):
        try:
            __import__(module)
        except ImportError:
            raise missing_extra(package, "report") from None


def _source(name: str) -> str:
    return (resources.files("lepton_rl.experiments") / name).read_text(encoding="utf-8")


def _address(figure: "Figure", format: str, kind: str, **settings: Any) -> str:
    out = io.BytesIO()
    figure.savefig(out, format=format, **settings)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
