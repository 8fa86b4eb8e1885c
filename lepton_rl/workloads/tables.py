"""Strict CSV tables: every row has every column, every number is a number, every error names its line."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lepton_rl.errors import TraceError, counted, nearest
from lepton_rl.workloads.columns import fail
from lepton_rl.workloads.files import read_text
from lepton_rl.workloads.trace import EXAMPLES, Dropped


@dataclass(frozen=True)
class CsvTable:
    """The rows of a CSV file as text.

    Attributes:
        path: the file.
        columns: values by column name, stripped of blanks.
        lines: the file's line of each row, from 1.
    """

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: NDArray[np.int64]

    def locate(self, row: int) -> str:
        """Return "FILE:LINE" of a row."""
        return f"{self.path}:{self.lines[row]}"

    def numbers(self, column: str, empty: float | None = None) -> NDArray[np.float64]:
        """Return a column as finite numbers, none negative; `empty` stands for an empty field if given."""
        texts = self.columns[column]
        try:
            values = np.array(texts, dtype=np.float64)
        except ValueError:
            values = np.array([self._number(row, column, text, empty) for row, text in enumerate(texts)])
        odd = ~(values >= 0.0) | np.isinf(values)
        odd |= np.char.find(np.asarray(texts), "_") >= 0  # 1_000 is a number to Python only
        for row in np.flatnonzero(odd).tolist():
            if texts[row]:
                self._number(row, column, texts[row], empty)
        return values

    def _number(self, row: int, column: str, text: str, empty: float | None) -> float:
        if not text:
            if empty is None:
                raise fail(self.locate(row), column, "the field is empty; it must hold a number")
            return empty
        try:
            value = float(text)
        except ValueError:
            value = np.nan
        if not np.isfinite(value) or "_" in text:
            raise fail(self.locate(row), column, f"{text!r} is not a number")
        if value < 0.0:
            raise fail(self.locate(row), column, f"{text} is negative")
        return value

    def drop(self, rows: NDArray[np.bool_], reason: str) -> tuple["CsvTable", tuple[Dropped, ...]]:
        """Return the table without `rows`, and the entry that counts and names them."""
        gone = np.flatnonzero(rows)
        if len(gone) == 0:
            return self, ()
        examples = tuple(f"line {self.lines[row]}" for row in gone[:EXAMPLES])
        if len(gone) == len(self.lines):
            raise TraceError(f"{self.path}: no job is left: all {counted(len(gone), 'row')} dropped ({reason})")
        kept = np.flatnonzero(~rows)
        columns = {name: [texts[row] for row in kept.tolist()] for name, texts in self.columns.items()}
        return CsvTable(self.path, columns, self.lines[kept]), (Dropped(reason, len(gone), examples),)


def read_table(
    path: Path,
    known: Sequence[str],
    required: Sequence[str],
    comments: bool = False,
    ending: str | None = None,
    rows: str = "jobs",
) -> CsvTable:
    """Read a CSV file with a header line; blank lines are skipped, and `#` lines if `comments`.

    Args:
        path: plain or gzip.
        known: every column that the format has; others are an error.
        required: those that must be there.
        comments: whether a line that begins with # is a comment.
        ending: columns whose name ends so are known too.
        rows: what the rows are, for errors.
    """
    text = read_text(path)
    reader = csv.reader(_lines(text, comments), strict=True)
    found: list[list[str]] = []
    numbers: list[int] = []
    header: list[str] | None = None
    try:
        for row in reader:
            if not row or (len(row) == 1 and not row[0].strip()):
                continue
            if header is None:
                header = [name.strip() for name in row]
                _check_header(f"{path}:{reader.line_num}", header, known, required, ending)
            elif len(row) != len(header):
                fields, expected = counted(len(row), "field"), counted(len(header), "column")
                raise TraceError(f"{path}:{reader.line_num}: {fields}; the header has {expected}")
            else:
                found.append(row)
                numbers.append(reader.line_num)
    except csv.Error as error:
        raise TraceError(f"{path}:{reader.line_num}: not CSV: {error}") from None
    if header is None:
        held = "holds only comments" if text.strip() else "is empty"
        raise TraceError(f"{path}: the file {held}; expected a header line: {','.join(required)}")
    if not found:
        raise TraceError(f"{path}: there are no {rows} below the header line")
    columns = {name: [row[i].strip() for row in found] for i, name in enumerate(header)}
    return CsvTable(path, columns, np.array(numbers, dtype=np.int64))


def _lines(text: str, comments: bool) -> Iterator[str]:
    for line in io.StringIO(text, newline=None):
        # a blank line in its place keeps the reader's count of lines right
        yield "\n" if comments and line.lstrip().startswith("#") else line


def _check_header(
    place: str, header: list[str], known: Sequence[str], required: Sequence[str], ending: str | None
) -> None:
    for i, name in enumerate(header):
        if name in header[:i]:
            raise TraceError(f"{place}: column {name!r} appears twice")
        named = ending is not None and name.endswith(ending) and name != ending
        if name not in known and not named:
            hint = nearest(name, known) or f"; known: {', '.join(known)}"
            if len(header) == 1 and any(other in name for other in ";\t|"):
                hint = "; columns are separated by commas"
            raise TraceError(f"{place}: no column is called {name!r}{hint}")
    for name in required:
        if name not in header:
            raise TraceError(f"{place}: column {name!r} is missing; required: {', '.join(required)}")
