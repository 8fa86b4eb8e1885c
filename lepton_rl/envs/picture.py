"""One moment of a cluster as pixels: clock, utilisation and power, every GPU, the head of the queue.

day 1 02:46                 12 running  34 waiting
in use  ██████████████░░░░░░░░░░░░░░░░░░    45 %
power   ███████████████████░░░░░░░░░░░░░  9.6 kW
GPUs of each node, darker when busier: a tile for each node
waiting jobs in window order: GPUs asked for | time waited
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.envs import pixel_text
from lepton_rl.errors import counted
from lepton_rl.workloads import duration_text

if TYPE_CHECKING:
    from lepton_rl.envs.view import EnvironmentView

Picture = NDArray[np.uint8]
WIDTH = 640
SHOWN_JOBS = 16
"""Rows for waiting jobs, where the window is no smaller."""
_MARGIN = 16
_SPAN = WIDTH - 2 * _MARGIN
_BAR = slice(_MARGIN + 80, WIDTH - 136)  # of utilisation and power; name and figure beside it
_GUTTER = 44  # at the left of the GPUs, for the number of a line's first node
_GRID_TOP = 106
_GRID_HEIGHT = 200  # at most
_CELLS = (24, 18, 14, 11, 9, 7, 5, 4, 3)  # sides of a GPU's square in pixels, the free pixel behind it included
_ROW = 11  # pixels of a waiting job
_GPUS_BAR = slice(_MARGIN + 44, _MARGIN + 300)
_WAIT_BAR = slice(_MARGIN + 364, WIDTH - _MARGIN)
_WAIT_MARKS = ((60.0, "1 min"), (3600.0, "1 h"), (86400.0, "1 d"))
_LONGEST_WAIT = 7 * 86400.0  # seconds at the right end

_BACKGROUND, _INK, _FAINT, _TILE, _FREE, _USED, _WAITING, _STARTABLE, _WAITED = (
    np.array(colour, np.uint8)
    for colour in (
        (250, 250, 248), (50, 54, 58), (128, 132, 136), (203, 206, 209), (236, 238, 240), (38, 110, 180),
        (214, 138, 52), (74, 154, 92), (120, 100, 160),
    )
)  # fmt: skip


class _Grid(NamedTuple):
    """Where the squares of GPUs stand; nodes that are too many for a square a GPU have one each, or share one."""

    nodes: int  # of a square: 0 where it is one GPU
    side: int  # pixels of a square, the free one behind it included
    across: int  # squares of a tile from left to right
    down: int  # from top to bottom
    tiles_across: int
    tiles: int

    @property
    def height(self) -> int:
        return -(-self.tiles // self.tiles_across) * self._pitch(self.down)

    def _pitch(self, squares: int) -> int:
        """Pixels from one tile to the next; those of one square stand without a border."""
        return squares * self.side + (3 if self.nodes == 0 else 0)

    def corners(self, tiles: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return top and left of tiles, relative to the grid."""
        return tiles // self.tiles_across * self._pitch(self.down), tiles % self.tiles_across * self._pitch(self.across)


def draw(view: "EnvironmentView", cluster: ClusterSpec, window: int) -> Picture:
    """Return the picture of a moment, shape (height, WIDTH, 3).

    The height follows from the cluster and the window alone: all pictures of an episode have one size.
    """
    grid = _grid(cluster)
    rows = min(window, SHOWN_JOBS)
    queue_top = _GRID_TOP + grid.height + 12
    picture = np.empty((queue_top + 16 + rows * _ROW + _MARGIN, WIDTH, 3), np.uint8)
    picture[:] = _BACKGROUND
    _draw_summary(picture, view, cluster)
    _draw_gpus(picture, view, cluster, grid)
    _draw_queue(picture, view, cluster, queue_top, rows)
    return picture


def _draw_summary(picture: Picture, view: "EnvironmentView", cluster: ClusterSpec) -> None:
    days, seconds = divmod(int(view.time), 86400)
    clock = f"day {days:,} {seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    pixel_text.write(picture, _MARGIN, _MARGIN, clock, _INK, 2)
    jobs = f"{view.running:,} running  {len(view.queue_gpus):,} waiting"
    _write_right(picture, _MARGIN, jobs, _INK, 2)
    busy = float(view.gpu_load.mean())
    most = cluster.gpus * cluster.max_power_w
    _draw_bar(picture, 42, "in use", busy, f"{busy:.0%}".replace("%", " %"))
    _draw_bar(picture, 64, "power", view.power_w / most if most else 0.0, _power_text(view.power_w))


def _draw_bar(picture: Picture, top: int, name: str, share: float, figure: str) -> None:
    pixel_text.write(picture, top, _MARGIN, name, _INK, 2)
    picture[top : top + 14, _BAR] = _FREE
    picture[top : top + 14, _BAR][:, : _length(share, _BAR)] = _USED
    _write_right(picture, top, figure, _INK, 2)


def _draw_gpus(picture: Picture, view: "EnvironmentView", cluster: ClusterSpec, grid: _Grid) -> None:
    what = "GPUs" if cluster.nodes == 1 else "GPUs of each node, first node of a line on its left"
    if grid.nodes:
        what = f"{counted(cluster.nodes, 'node')}, {grid.nodes:,} to a square, first node of a line on its left"
    pixel_text.write(picture, _GRID_TOP - 14, _MARGIN, f"{what}, pale is free, blue is busy", _FAINT)
    tiles = np.arange(grid.tiles)
    top, left = grid.corners(tiles)
    top, left = top + _GRID_TOP, left + _MARGIN + _GUTTER
    if cluster.nodes > 1:
        for tile in tiles[:: grid.tiles_across]:
            text = f"{tile * max(grid.nodes, 1)}"
            if tile == 0 or grid.side * grid.down > pixel_text.HEIGHT or tile // grid.tiles_across % 4 == 0:
                pixel_text.write(picture, int(top[tile]), _MARGIN, text, _FAINT)
    if grid.nodes:
        starts = np.arange(0, cluster.nodes, grid.nodes) * cluster.gpus_per_node
        ends = np.minimum(starts + grid.nodes * cluster.gpus_per_node, cluster.gpus)
        load = np.add.reduceat(view.gpu_load, starts) / (ends - starts)
    else:
        load = view.gpu_load
        _fill(picture, top - 1, left - 1, grid.down * grid.side + 1, grid.across * grid.side + 1, _TILE)
        gpu = np.arange(cluster.gpus)
        tile, inside = np.divmod(gpu, cluster.gpus_per_node)
        top = top[tile] + inside // grid.across * grid.side
        left = left[tile] + inside % grid.across * grid.side
    colours = (_FREE + (_USED.astype(np.float64) - _FREE) * load[:, None]).astype(np.uint8)
    _fill(picture, top, left, grid.side - 1, grid.side - 1, colours[:, None, None, :])


def _draw_queue(picture: Picture, view: "EnvironmentView", cluster: ClusterSpec, top: int, rows: int) -> None:
    shown = min(len(view.queue_gpus), rows)
    pixel_text.write(picture, top, _MARGIN, "GPUs", _FAINT)
    pixel_text.write(picture, top, _GPUS_BAR.start, "fits now", _STARTABLE)
    pixel_text.write(picture, top, _GPUS_BAR.start + 60, "does not fit", _WAITING)
    if len(view.queue_gpus) > shown:
        pixel_text.write(picture, top, _GPUS_BAR.start + 144, f"first {shown} of {len(view.queue_gpus):,}", _FAINT)
    pixel_text.write(picture, top, _WAIT_BAR.start - 64, "waited", _FAINT)
    top += 14
    for seconds, name in _WAIT_MARKS:
        place = _WAIT_BAR.start + _length(_wait_share(seconds), _WAIT_BAR)
        picture[top - 2 : top + rows * _ROW, place] = _FREE
        pixel_text.write(picture, top - 14, place - pixel_text.width(name) // 2, name, _FAINT)
    for slot in range(shown):
        gpus, wait = float(view.queue_gpus[slot]), float(view.queue_wait[slot])
        colour = _STARTABLE if view.queue_fits[slot] else _WAITING
        line = slice(top + slot * _ROW, top + slot * _ROW + _ROW - 3)
        pixel_text.write(picture, line.start, _MARGIN, f"{gpus:g}", _INK)
        # square roots: one GPU of a thousand is still seen
        picture[line, _GPUS_BAR][:, : max(_length((gpus / cluster.gpus) ** 0.5, _GPUS_BAR), 2)] = colour
        pixel_text.write(picture, line.start, _WAIT_BAR.start - 64, duration_text(round(wait)), _INK)
        picture[line, _WAIT_BAR][:, : _length(_wait_share(wait), _WAIT_BAR)] = _WAITED


def _grid(cluster: ClusterSpec) -> _Grid:
    """Return the grid with the largest squares for which there is room; at need a square is a node, or several."""
    room = _SPAN - _GUTTER
    for side in _CELLS:
        across = min(cluster.gpus_per_node, (room - 3) // side)
        down = -(-cluster.gpus_per_node // across)
        grid = _Grid(0, side, across, down, max(room // (across * side + 3), 1), cluster.nodes)
        if grid.height <= _GRID_HEIGHT:
            return grid
    for side in _CELLS:
        if -(-cluster.nodes // (room // side)) * side <= _GRID_HEIGHT:
            return _Grid(1, side, 1, 1, room // side, cluster.nodes)
    side = _CELLS[-1]
    nodes = -(-cluster.nodes // (room // side * (_GRID_HEIGHT // side)))
    return _Grid(nodes, side, 1, 1, room // side, -(-cluster.nodes // nodes))


def _fill(picture: Picture, top: Any, left: Any, height: int, width: int, colours: Picture) -> None:
    """Fill rectangles of one size; `top` and `left` are arrays of them."""
    lines = top[:, None, None] + np.arange(height)[None, :, None]
    picture[lines, left[:, None, None] + np.arange(width)[None, None, :]] = colours


def _write_right(picture: Picture, top: int, text: str, colour: Picture, scale: int) -> None:
    pixel_text.write(picture, top, WIDTH - _MARGIN - pixel_text.width(text, scale), text, colour, scale)


def _length(share: float, bar: slice) -> int:
    pixels: int = bar.stop - bar.start
    return round(min(share, 1.0) * pixels)


def _wait_share(seconds: float) -> float:
    return float(np.log1p(seconds) / np.log1p(_LONGEST_WAIT))


def _power_text(watts: float) -> str:
    kilowatts = watts / 1000
    return f"{kilowatts:.1f} kW" if kilowatts < 1000 else f"{kilowatts / 1000:,.1f} MW"
