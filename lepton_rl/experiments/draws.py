"""What each GPU of a recorded run drew, in pieces of constant draw: by its jobs, its limit, its health and its heat."""

from itertools import pairwise

import numpy as np

from lepton_rl.core import ClusterSpec
from lepton_rl.core.arrays import Bools
from lepton_rl.core.hardware import GpuType, seconds_to_temperature, temperature_after_c
from lepton_rl.core.hardware.rules import INLET_TEMPERATURE_C
from lepton_rl.core.hardware.thermal import steady_temperature_c
from lepton_rl.experiments.recording import Ints, Recording
from lepton_rl.experiments.watched import Draws

Piece = tuple[float, float, float, bool]
"""Begin, end, watts beyond idle, and whether the GPU throttled."""


def draws_of(recording: Recording) -> Draws:
    """Return what GPUs drew beyond an idle cluster."""
    cluster, watched = recording.cluster, recording.watched
    if watched is None:
        idle, full = (cluster.gpu_draw_w(np.full(cluster.gpus, load)) for load in (0.0, 1.0))
        stay = recording.stay
        watts = (full - idle)[recording.gpu] * recording.share[stay]
        return Draws(recording.gpu, recording.begin[stay], recording.end[stay], watts)
    return watched.draws if not _has_heat(recording) else _held_back(recording, watched.draws)[0]


def throttled_draws(recording: Recording) -> Draws:
    """Return those of the draws that heat held back; none where the cluster counts no heat."""
    if recording.watched is None or not _has_heat(recording):
        nothing = np.empty(0)
        return Draws(nothing.astype(np.int64), nothing, nothing, nothing)
    draws, is_held = _held_back(recording, recording.watched.draws)
    return Draws(draws.gpu[is_held], draws.begin[is_held], draws.end[is_held], draws.watts[is_held])


def _has_heat(recording: Recording) -> bool:
    return recording.cluster.dynamics.inlet_temperature_c is not None


def inlet_c(cluster: ClusterSpec) -> float:
    """Return the temperature of the cooling air: the cluster's, or what the thermal rules assume."""
    inlet = cluster.dynamics.inlet_temperature_c
    return INLET_TEMPERATURE_C if inlet is None else inlet


def type_of_gpu(cluster: ClusterSpec) -> Ints:
    """Return the index among `cluster.types` of each GPU's type, shape (GPUs,)."""
    names = [kind.name for kind in cluster.types]
    kinds = [names.index(group.limited_gpu.name) for group in cluster.groups]
    return np.repeat(np.array(kinds, np.int64), [group.gpus for group in cluster.groups])


def _held_back(recording: Recording, draws: Draws) -> tuple[Draws, Bools]:
    """Return the draws with those of throttling GPUs lowered to what holds the throttle temperature, and which they
    are, shape (pieces,)."""
    cluster = recording.cluster
    kinds = type_of_gpu(cluster)
    order = np.lexsort((draws.begin, draws.gpu))
    gpus = draws.gpu[order]
    rows = np.column_stack((draws.begin, draws.end, draws.watts))[order]
    parts: list[Piece] = []
    owners: list[int] = []
    for begin, end in pairwise([0, *(np.flatnonzero(np.diff(gpus)) + 1).tolist(), len(gpus)]):
        if end > begin:
            kind = cluster.types[kinds[gpus[begin]]]
            pieces = _throttled(rows[begin:end].tolist(), kind, inlet_c(cluster), recording.begun)
            parts += pieces
            owners += [gpus[begin]] * len(pieces)
    begins, ends, watts, held = np.array(parts, np.float64).reshape(-1, 4).T
    return Draws(np.array(owners, np.int64), begins, ends, watts), held.astype(np.bool_)


def _throttled(pieces: list[tuple[float, float, float]], kind: GpuType, inlet: float, begun: float) -> list[Piece]:
    """Return one GPU's pieces, in order of time, split where it begins to throttle (see `core.hardware.thermal`)."""
    resistance, tau = kind.thermal_resistance_c_per_w, kind.thermal_time_constant_s
    throttle, idle = kind.throttle_temperature_c, kind.idle_power_w
    hold = (throttle - inlet) / resistance
    degrees, now = steady_temperature_c(idle, inlet, resistance), begun
    found: list[Piece] = []
    for begin, end, beyond in pieces:
        if begin > now:
            degrees = temperature_after_c(degrees, idle, begin - now, inlet, resistance, tau)
        natural, now = idle + beyond, end
        if natural <= hold:
            degrees = temperature_after_c(degrees, natural, end - begin, inlet, resistance, tau)
            found.append((begin, end, beyond, False))
            continue
        hot_at = begin
        if degrees < throttle:
            hot_at += seconds_to_temperature(degrees, throttle, natural, inlet, resistance, tau)
        if hot_at > begin:
            found.append((begin, min(hot_at, end), beyond, False))
        if hot_at < end:
            found.append((hot_at, end, hold - idle, True))
            degrees = throttle
        else:
            degrees = temperature_after_c(degrees, natural, end - begin, inlet, resistance, tau)
    return found
