"""Observations in fewer bytes: float16, or uint8 levels of a fixed range for each feature.

What is stored and sent is the encoded observation; a network reads the decoded one, in float32. Both steps are the same
float32 arithmetic in NumPy and in torch, so that a trained policy decides on the very numbers that it learnt on.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from lepton_rl.core.arrays import Singles
from lepton_rl.core.cluster import ClusterSpec
from lepton_rl.envs.codec import Codec, Observation
from lepton_rl.envs.features import CONTEXT_FEATURES
from lepton_rl.envs.stopping import GAIN
from lepton_rl.errors import ConfigError, nearest

ObservationDtype = Literal["float32", "float16", "uint8"]
OBSERVATION_DTYPES: tuple[ObservationDtype, ...] = get_args(ObservationDtype)

Ranges = Mapping[str, tuple[Singles, Singles]]
"""Least and greatest of each entry, shape () or (features,)."""

LEVELS = 255
_GREATEST_HALF = float(np.finfo(np.float16).max)

# Where a feature is not within 0 to 1. Logarithms of times: 1.5 is two years, of work: 1.5 is 2,000 GPUs for 8 years.
_BOUNDS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("time", "area", "wait", "key_gap", "until_fit", "overrun", "shadow", "next_completion"), (0, 1.5)),
    **dict.fromkeys(("slowdown", "waiting", "queued_work", "remaining_work", "queue_weight", "hidden"), (0, 2)),
    **dict.fromkeys(("time_left", "area_left", "age", "cost"), (0, 1.5)),
    "free_after": (-1, 1),
    "reserve_room": (-2, 1),
}


def feature_ranges(codec: Codec, cluster: ClusterSpec) -> Ranges:
    """Return the range of each float32 entry of the codec's observation; uint8 takes what lies beyond for its end."""
    named = {"queue": codec.feature_names, "context": tuple(CONTEXT_FEATURES)}
    if codec.stoppable:
        named["running"] = codec.running_names(cluster)
    ranges = {}
    for entry in codec.shapes(cluster):
        pairs = np.array([_bounds_of(name) for name in named.get(entry, ())], np.float32)
        ranges[entry] = (pairs[:, 0], pairs[:, 1]) if len(pairs) else (np.float32(0), np.float32(1))
    return {name: (np.asarray(low), np.asarray(high)) for name, (low, high) in ranges.items()}


def _bounds_of(name: str) -> tuple[float, float]:
    return (-1, 1) if name.startswith(GAIN) else _BOUNDS.get(name, (0, 1))


@dataclass(frozen=True, eq=False)
class Quantization:
    """How entries of an observation are stored; entries without a range stay as they are.

    uint8: level q stands for `(q - zero) * step`, with 0 among the levels. A value inside its range is off by at most
    one step, by half a step where it is not next to 0: nothing above 0 becomes 0, which marks empty rows. A step is
    1/255 for a range of 0 to 1 and a little more than (high - low) / 255 where the range is on both sides of 0.

    Args:
        dtype: "float16" or "uint8".
        ranges: least and greatest of each entry, or of each of its features (the last axis).

    Raises:
        ConfigError: another dtype, or a range that it cannot hold.
    """

    dtype: str
    ranges: Ranges
    levels: Mapping[str, tuple[Singles, Singles]] = field(init=False)
    """uint8: (zero, step) of each entry, float32; nothing for float16."""
    _known: dict[Any, tuple[Singles, Singles]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in ("float16", "uint8"):
            close = nearest(self.dtype, OBSERVATION_DTYPES)
            raise ConfigError(
                f"observations cannot be stored as {self.dtype!r}{close}; known: {', '.join(OBSERVATION_DTYPES)}"
            )
        for name, (low, high) in self.ranges.items():
            _check_range(self.dtype, name, low, high)
        levels = {name: _levels(*limits) for name, limits in self.ranges.items()} if self.dtype == "uint8" else {}
        object.__setattr__(self, "levels", levels)

    def encode(self, observation: Observation) -> Observation:
        """Return new arrays of `dtype` for the entries with a range, and the others themselves."""
        return {name: self._encoded(name, array) for name, array in observation.items()}

    def _encoded(self, name: str, array: Any) -> Any:
        if name not in self.ranges:
            return array
        return array.astype(np.float16) if self.dtype == "float16" else _to_levels(array, *self.levels[name])

    def decode(self, observation: Observation) -> Observation:
        """Return what the encoded entries stand for, float32, and the others themselves."""
        return {name: self._decoded(name, array) for name, array in observation.items()}

    def _decoded(self, name: str, array: Any) -> Any:
        if name not in self.ranges:
            return array
        return array.astype(np.float32) if self.dtype == "float16" else _from_levels(array, *self.levels[name])

    def rounded(self, observation: Observation) -> Observation:
        """Return the observation as a network reads it after it was stored: what `decode` makes of `encode`.

        All entries are rounded in one go, since a policy on a node does so for each choice.
        """
        parts = tuple((name, array.shape) for name, array in observation.items() if name in self.ranges)
        flat = np.concatenate([observation[name].ravel() for name, _ in parts])
        if self.dtype == "float16":
            values = flat.astype(np.float16).astype(np.float32)
        else:
            tables = self._tables(parts)
            values = _from_levels(_to_levels(flat, *tables), *tables)
        left, first = dict(observation), 0
        for name, shape in parts:
            size = math.prod(shape)
            left[name] = values[first : first + size].reshape(shape)
            first += size
        return left

    def _tables(self, parts: tuple[tuple[str, tuple[int, ...]], ...]) -> tuple[Singles, Singles]:
        """Return zero and step for each number of these entries, one behind the other."""
        if parts not in self._known:
            both = [[np.broadcast_to(table, shape).ravel() for table in self.levels[name]] for name, shape in parts]
            zeros, steps = (np.concatenate(tables) for tables in zip(*both, strict=True))
            self._known[parts] = (zeros, steps)
        return self._known[parts]

    def space(self, space: spaces.Dict) -> spaces.Dict:
        """Return the space of encoded observations."""
        entries: dict[str, spaces.Space[Any]] = dict(space.spaces)
        for name, limits in self.ranges.items():
            shape = entries[name].shape or ()
            if self.dtype == "uint8":
                entries[name] = spaces.Box(0, LEVELS, shape, np.uint8)
            else:
                low, high = (np.broadcast_to(limit, shape).astype(np.float16) for limit in limits)
                entries[name] = spaces.Box(low, high, shape, np.float16)
        return spaces.Dict(entries)

    def describe(self) -> dict[str, Any]:
        """Return it as plain data, for a bundle."""
        ranges = {name: [low.tolist(), high.tolist()] for name, (low, high) in self.ranges.items()}
        return {"dtype": self.dtype, "ranges": ranges}

    @classmethod
    def from_description(cls, data: Mapping[str, Any]) -> Self:
        """Return what a bundle names.

        Raises:
            ConfigError: it cannot be.
        """
        ranges = {
            name: (np.asarray(low, np.float32), np.asarray(high, np.float32))
            for name, (low, high) in data["ranges"].items()
        }
        return cls(data["dtype"], ranges)


def quantization_for(dtype: str, codec: Codec, cluster: ClusterSpec) -> Quantization | None:
    """Return how observations are stored as `dtype`; None for float32, which they are already.

    Raises:
        ConfigError: the dtype is unknown.
    """
    return None if dtype == "float32" else Quantization(dtype, feature_ranges(codec, cluster))


def _to_levels(values: Singles, zero: Singles, step: Singles) -> NDArray[np.uint8]:
    levels = values / step
    np.rint(levels, out=levels)
    np.maximum(levels, np.where(values > 0, np.float32(1), -zero), out=levels)
    levels += zero
    np.minimum(levels, LEVELS, out=levels)
    return levels.astype(np.uint8)


def _from_levels(levels: NDArray[np.uint8], zero: Singles, step: Singles) -> Singles:
    values = levels.astype(np.float32)
    values -= zero
    values *= step
    return values


def _levels(low: Singles, high: Singles) -> tuple[Singles, Singles]:
    """Return (zero, step): the level of 0, a whole number, and the distance of two levels."""
    below, above = np.maximum(-low, 0).astype(np.float64), np.maximum(high, 0).astype(np.float64)
    zero = np.rint(LEVELS * below / (below + above))
    zero = np.clip(zero, below > 0, LEVELS - (above > 0))
    step = np.maximum(below / np.maximum(zero, 1), above / np.maximum(LEVELS - zero, 1))
    return np.asarray(zero, np.float32), np.asarray(step, np.float32)


def _check_range(dtype: str, name: str, low: Singles, high: Singles) -> None:
    greatest = _GREATEST_HALF if dtype == "float16" else np.finfo(np.float32).max
    if low.shape != high.shape:
        raise ConfigError(f"observation {name!r}: its bounds have shapes {low.shape} and {high.shape}; give them one")
    wrong = ~((np.abs(low) <= greatest) & (np.abs(high) <= greatest) & (low < high))
    if wrong.any():
        place = f", feature {np.flatnonzero(wrong)[0]}" if low.shape else ""
        least, most = (float(np.extract(wrong, limit)[0]) for limit in (low, high))
        raise ConfigError(
            f"observation {name!r}{place}: it lies within {least:g} to {most:g}, and {dtype} needs a lower and an "
            f"upper bound within ±{greatest:g}; use float32"
        )
