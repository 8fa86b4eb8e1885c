"""Advance reservations: nodes on which no job may start that is planned to run into the time reserved."""

import numpy as np

from lepton_rl.core import layout as L
from lepton_rl.core.arrays import Ints32
from lepton_rl.core.hardware.tables import Hardware
from lepton_rl.core.jit import inlined, njit

BEGIN, END, NODE = range(3)


@inlined
def reservations(hw: Hardware) -> int:
    """Number of times that a node is reserved."""
    if hw is None:
        return 0
    return int(hw.reservations.shape[0])


@inlined
def has_reservations(hw: Hardware) -> bool:
    """Whether any node is ever reserved."""
    return reservations(hw) > 0


@inlined
def set_second(nodes: Ints32, now: float) -> None:
    """Write the present second, rounded up: whole seconds are left until a reservation."""
    nodes[0, L.CLOCK] = int(np.ceil(now))


@njit
def reserve(nodes: Ints32, hw: Hardware, now: float) -> None:
    """Write of each node when it is reserved next, or that it is."""
    if hw is None:
        return
    set_second(nodes, now)
    for row in range(hw.reservations.shape[0]):
        nodes[int(hw.reservations[row, NODE]), L.LASTS] = L.UNCOUNTED
    for row in range(hw.reservations.shape[0]):
        if hw.reservations[row, END] > now:
            node = int(hw.reservations[row, NODE])
            begin = int(hw.reservations[row, BEGIN])
            nodes[node, L.LASTS] = min(int(nodes[node, L.LASTS]), L.RESERVED if begin <= now else begin)


@njit
def next_change(hw: Hardware, now: float) -> float:
    """Next time after now at which a reservation begins or ends; infinity for none."""
    time = np.inf
    if hw is not None:
        for row in range(hw.reservations.shape[0]):
            for edge in (BEGIN, END):
                if hw.reservations[row, edge] > now:
                    time = min(time, hw.reservations[row, edge])
    return time


@njit
def next_end(hw: Hardware, after: float) -> float:
    """First time later than `after` at which a reservation ends; infinity for none."""
    time = np.inf
    if hw is not None:
        for row in range(hw.reservations.shape[0]):
            if hw.reservations[row, END] > after:
                time = min(time, hw.reservations[row, END])
    return time


@njit
def free_but_reserved(gpus: Ints32, nodes: Ints32, hw: Hardware) -> int:
    """Milli-GPU that are up and free on nodes reserved now."""
    milli = 0
    if hw is not None:
        for node in range(nodes.shape[0]):
            if nodes[node, L.LASTS] == L.RESERVED:
                milli += L.MILLI * int(nodes[node, L.COUNT] - nodes[node, L.GPUS_DOWN]) - int(nodes[node, L.BUSY])
    return milli
