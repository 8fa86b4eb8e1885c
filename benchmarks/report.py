"""A report of the rows: a table on the terminal, JSON, and the table of docs/performance.md."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.rows import Row, figure

BEGIN = "<!-- measured: begin -->"
END = "<!-- measured: end -->"
WIDTH = 150  # of the table; longer lines are the terminal's to wrap
COLUMNS = ("what", "measured", "target", "met", "× peer")
PACKAGES = ("numpy", "numba", "gymnasium", "torch", "stable-baselines3", "sb3-contrib")


def machine() -> dict[str, str]:
    """Return what the figures depend on: processor, cores, versions."""
    facts = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    known = {name.strip(): value.strip() for name, value in facts.items()}
    name = known.get("model name", platform.machine())
    model = known.get("model")  # virtual machines often hide the name but not the model number
    return f"{name} (family {known.get('cpu family', '?')}, model {model})" if model else name


def _cells(row: Row, quick: bool) -> tuple[str, ...]:
    verdict = {True: "yes", False: "no", None: ""}[row.met(quick)]
    return (
        row.name,
        f"{figure(row.measured)} {row.unit}",
        "" if row.target is None else str(row.target),
        verdict,
        "" if row.ratio is None else figure(row.ratio),
    )


def _beside(rows: Sequence[Row]) -> list[str]:
    """Return one line for each row that saw more than its figure."""
    return [
        f"{row.name}: " + "; ".join(f"{name} {figure(value)}" for name, value in row.details.items())
        for row in rows
        if row.details
    ]


def print_table(rows: Sequence[Row], quick: bool) -> None:
    """Print the rows, then what stands beside them."""
    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(
            column, justify="right" if column in ("measured", "target", "× peer") else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*_cells(row, quick))
    console = Console(width=WIDTH, highlight=False, soft_wrap=True)
    if quick:
        console.print("quick run: sizes reduced, bars not judged")
    console.print(table)
    console.print()
    for line in _beside(rows):
        console.print(line, markup=False)


def as_json(rows: Mapping[str, Sequence[Row]], facts: Mapping[str, str], quick: bool) -> dict[str, Any]:
    """Return everything as plain data; `rows` by benchmark."""
    named = [{"benchmark": name, **row.as_json(quick)} for name, some in rows.items() for row in some]
    return {"machine": dict(facts), "quick": quick, "rows": named}


def write_json(rows: Mapping[str, Sequence[Row]], facts: Mapping[str, str], quick: bool, path: Path) -> None:
    """Write `as_json` to a file."""
    path.write_text(json.dumps(as_json(rows, facts, quick), indent=2) + "\n")


def write_markdown(rows: Sequence[Row], facts: Mapping[str, str], path: Path) -> None:
    """Replace what stands between the two markers of a page by machine and table."""
    lines = [", ".join(f"{name} {value}" for name, value in facts.items()), ""]
    lines += [_line(COLUMNS), _line("---" for _ in COLUMNS)]
    lines += [_line(_cells(row, quick=False)) for row in rows]
    lines += ["", "Beside the figures:", "", *(f"- {line}" for line in _beside(rows))]
    replace_between(path, BEGIN, END, lines)


def replace_between(path: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Replace what stands between two markers of a page."""
    page = path.read_text()
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise SystemExit(f"{path}: the markers {begin} and {end} must stand in it once each, in this order")
    before, after = page[: page.index(begin)], page[page.index(end) :]
    path.write_text(f"{before}{begin}\n" + "\n".join(lines) + f"\n{after}")


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
