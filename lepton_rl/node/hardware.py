"""A machine's devices as a cluster: the numbers by which policies call its GPUs, and the type that each is of."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from lepton_rl.core.cluster import ClusterSpec, NodeGroup
from lepton_rl.core.hardware.catalogue import gpu_type
from lepton_rl.core.hardware.gpu_type import GpuType, unknown_gpu_type
from lepton_rl.devices import DeviceIdentity
from lepton_rl.errors import ConfigError, NodeError

GIB = 1 << 30
CPU, RAM = "cpu_cores", "ram_gib"
_FAKE = "Fake "


@dataclass(frozen=True)
class NodeHardware:
    """What a policy sees of a machine.

    Attributes:
        cluster: one group for each type of GPU; the machine's cores and memory are divided among them by their GPUs.
        uuids: of GPU 0, 1, ... of the cluster.
        minors: number of the device file of each GPU, where it is known.
        notes: what is not as the catalogue says, one sentence each.
    """

    cluster: ClusterSpec
    uuids: tuple[str, ...]
    minors: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def number_of(self, uuid: str) -> int:
        """Return the number of a GPU in the cluster."""
        return self.uuids.index(uuid)


def describe_hardware(identities: Sequence[DeviceIdentity]) -> NodeHardware:
    """Return the cluster that these devices are.

    A GPU in MIG mode takes no work itself; its instances are GPUs of a type of their own.

    Raises:
        NodeError: there is no GPU.
    """
    usable = [identity for identity in identities if not identity.divided]
    if not usable:
        raise NodeError("this machine has no GPU that takes work; a node needs at least one")
    notes: list[str] = []
    kinds = [(identity, _type_of(identity, notes)) for identity in usable]
    kinds.sort(key=lambda pair: (pair[1].name, pair[0].index))
    groups, uuids = [], []
    for _, members in groupby(kinds, key=lambda pair: pair[1].name):
        same = list(members)
        part = len(same) / len(kinds)
        offers = ((CPU, round(part * (os.cpu_count() or 1), 3)), (RAM, round(part * _memory_gib(), 3)))
        groups.append(NodeGroup(1, len(same), same[0][1], offers))
        uuids += [identity.uuid for identity, _ in same]
    minors = {identity.uuid: identity.minor for identity in usable if identity.minor is not None}
    return NodeHardware(ClusterSpec.of_groups(tuple(groups)), tuple(uuids), minors, tuple(dict.fromkeys(notes)))


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def _type_of(identity: DeviceIdentity, notes: list[str]) -> GpuType:
    """The catalogue's type of a device, with the limits and the memory that its driver says; or a type of its own."""
    try:
        if identity.parent_uuid is not None:
            raise ConfigError("a part of a GPU stands in no catalogue")
        known = gpu_type(identity.name.removeprefix(_FAKE))
    except ConfigError:
        if identity.parent_uuid is None:
            notes.append(f"{identity.name} is not in the catalogue of GPUs: its speed counts as that of the reference")
        return _own_type(identity)
    for figures in _said(identity, known):
        try:
            return replace(known, **figures)  # type: ignore[arg-type]
        except ConfigError:
            notes.append(f"{identity.name}: the driver's {', '.join(figures)} contradict the catalogue, which stands")
    return known


def _said(identity: DeviceIdentity, known: GpuType) -> Iterator[dict[str, float]]:
    """What the driver says of a known card: all of it, then what is left without its power limits."""
    memory = {} if identity.memory_total_bytes is None else {"memory_gib": identity.memory_total_bytes / GIB}
    lowest, highest = identity.min_power_limit_mw, identity.max_power_limit_mw
    if lowest is not None and highest is not None:
        limits = {"min_power_limit_w": lowest / 1e3, "max_power_limit_w": highest / 1e3}
        yield {**memory, **limits, "max_power_w": min(known.max_power_w, highest / 1e3)}
    if memory:
        yield memory


def _own_type(identity: DeviceIdentity) -> GpuType:
    """A type from what the driver says alone; what a power limit does to it is not known, so that none binds."""
    most = (identity.default_power_limit_mw or identity.max_power_limit_mw or 250_000) / 1e3
    lowest = (identity.min_power_limit_mw or most * 1e3) / 1e3
    memory = identity.memory_total_bytes or GIB
    highest = max(lowest, (identity.max_power_limit_mw or most * 1e3) / 1e3)
    name = f"{identity.name} {memory / GIB:.0f} GiB"
    return unknown_gpu_type(name, memory / GIB, 0.1 * most, most, (lowest, highest))
