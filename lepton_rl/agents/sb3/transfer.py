"""The one place where training's arrays cross between host and device.

On a CPU nothing crosses: torch and NumPy share the memory. On CUDA the arrays that belong together lie in one pinned
block, which is copied at once and asynchronously on a stream of its own; two blocks take turns, so that the next one is
filled and copied while the device still computes on the one before.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Arrays = dict[str, NDArray[Any]]
Tensors = dict[str, Tensor]
Shapes = Mapping[str, tuple[tuple[int, ...], Any]]
"""Shape and dtype of each array."""
Order = TypeVar("Order")

ALIGNMENT = 64
"""Bytes: a cache line, and more than any load of a device needs."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One array in a block: `offset` and `size` in bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    size: int


class Packing:
    """Where each of several arrays lies in one block of bytes.

    Attributes:
        size: bytes of a block, the gaps between aligned arrays included.
        used: bytes of the arrays alone.
    """

    def __init__(self, arrays: Shapes) -> None:
        """Lay out arrays of these shapes and dtypes, in this order."""
        self.entries: dict[str, Entry] = {}
        offset = 0
        for name, (shape, dtype) in arrays.items():
            kind = np.dtype(dtype)
            size = int(np.prod(shape)) * kind.itemsize
            self.entries[name] = Entry(tuple(shape), kind, offset, size)
            offset += -(-size // ALIGNMENT) * ALIGNMENT
        self.size = offset
        self.used = sum(entry.size for entry in self.entries.values())

    def tensors(self, block: Tensor) -> Tensors:
        """Return views of blocks, uint8 (..., size): each array with the leading axes of the blocks."""
        return {name: _typed(block, entry) for name, entry in self.entries.items()}

    def arrays(self, block: Tensor) -> Arrays:
        """Return the same views in NumPy, of blocks on the host."""
        return {name: tensor.numpy() for name, tensor in self.tensors(block).items()}


def _typed(block: Tensor, entry: Entry) -> Tensor:
    part = block[..., entry.offset : entry.offset + entry.size].view(_torch_dtype(entry.dtype))
    return part.view(*block.shape[:-1], *entry.shape)


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def is_cuda(device: torch.device) -> bool:
    """Return whether copies to the device can overlap with its work."""
    return device.type == "cuda"


class _Slot:
    """A block on the host, pinned for CUDA, and its copy on the device, on a CPU the same memory."""

    def __init__(self, packing: Packing, device: torch.device) -> None:
        cuda = is_cuda(device)
        self.host = torch.empty(packing.size, dtype=torch.uint8, pin_memory=cuda)
        self.there = torch.empty(packing.size, dtype=torch.uint8, device=device) if cuda else self.host
        self.room = packing.arrays(self.host)
        self.copied = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]


class Sender:
    """Sends blocks of one packing to a device, two in turns.

    What `send` returns stays as it is until the second next call, what `batches` yields until the next is asked for.

    Args:
        packing: of each block.
        device: where they go.

    Attributes:
        sent_bytes: bytes copied to the device so far, gaps included; on a CPU none.
    """

    def __init__(self, packing: Packing, device: torch.device) -> None:
        self.packing = packing
        self.device = device
        self.sent_bytes = 0
        self._slots: list[_Slot] = []
        self._turn = 0
        self._stream = torch.cuda.Stream(device) if is_cuda(device) else None  # type: ignore[no-untyped-call]

    def send(self, arrays: Mapping[str, NDArray[Any]], into: Tensor | None = None) -> Tensors:
        """Copy arrays to the device, at once, and return them there; a CPU's tensors share their memory.

        Args:
            arrays: what the packing names.
            into: a block on the device to copy to, uint8 (size,); left out, one of the sender's own.
        """
        if self._stream is None and into is None:
            return {name: torch.from_numpy(arrays[name]) for name in self.packing.entries}

        def fill(room: Arrays) -> None:
            for name, target in room.items():
                np.copyto(target, arrays[name], casting="no")

        return self._arrived(*self._start(fill, into))

    def batches(self, orders: Iterable[Order], gather: Callable[[Order, Arrays], None]) -> Iterator[Tensors]:
        """Yield a block for each order, filled by `gather(order, room)`; on CUDA the next is on its way meanwhile."""
        ahead: tuple[_Slot, Tensor] | None = None
        for order in orders:
            begun = self._start(partial(gather, order))
            if self._stream is None:
                yield self._arrived(*begun)
                continue
            if ahead is not None:
                yield self._arrived(*ahead)
            ahead = begun
        if ahead is not None:
            yield self._arrived(*ahead)

    def _start(self, fill: Callable[[Arrays], None], into: Tensor | None = None) -> tuple[_Slot, Tensor]:
        """Fill the next block and let it set off."""
        slot = self._next_slot()
        if slot.copied is not None:
            slot.copied.synchronize()  # its bytes may still be under way from the host
        fill(slot.room)
        target = slot.there if into is None else into
        if self._stream is None or slot.copied is None:
            if target is not slot.host:
                target.copy_(slot.host)
            return slot, target
        # what is computed on the old content is queued already: the copy goes behind it
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            target.copy_(slot.host, non_blocking=True)
            slot.copied.record(self._stream)
        target.record_stream(self._stream)
        self.sent_bytes += self.packing.size
        return slot, target

    def _next_slot(self) -> _Slot:
        if len(self._slots) < 2:
            self._slots.append(_Slot(self.packing, self.device))
            return self._slots[-1]
        slot = self._slots[self._turn]
        self._turn = 1 - self._turn
        return slot

    def _arrived(self, slot: _Slot, target: Tensor) -> Tensors:
        """Let what is computed from now on wait for the copy; the host does not."""
        if slot.copied is not None:
            torch.cuda.current_stream(self.device).wait_event(slot.copied)
        return self.packing.tensors(target)


class Transfer:
    """Sends arrays of any shapes to one device and brings tensors back, all that belong together in one copy.

    What `send` and `fetch` return stays as it is until the second next call of the same kind.

    Attributes:
        device: the device.
        fetched_bytes: bytes copied to the host so far; on a CPU none.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.fetched_bytes = 0
        self._senders: dict[Any, Sender] = {}
        self._blocks: list[tuple[Tensor, Tensor]] = []

    @property
    def sent_bytes(self) -> int:
        """Bytes copied to the device so far; on a CPU none."""
        return sum(sender.sent_bytes for sender in self._senders.values())

    def sender(self, shapes: Shapes) -> Sender:
        """Return the sender of arrays of these shapes and dtypes, always the same one."""
        key = tuple((name, tuple(shape), np.dtype(dtype).str) for name, (shape, dtype) in shapes.items())
        if key not in self._senders:
            self._senders[key] = Sender(Packing(shapes), self.device)
        return self._senders[key]

    def send(self, arrays: Mapping[str, NDArray[Any]]) -> Tensors:
        """Copy arrays to the device, at once; a CPU's tensors share their memory."""
        return self.sender({name: (array.shape, array.dtype) for name, array in arrays.items()}).send(arrays)

    def fetch(self, tensors: Mapping[str, Tensor]) -> Arrays:
        """Return tensors as arrays; waits for the device only until they are there. A CPU's arrays share memory."""
        if not is_cuda(self.device):
            return {name: tensor.detach().numpy() for name, tensor in tensors.items()}
        packing = Packing({name: (tuple(tensor.shape), _numpy_dtype(tensor.dtype)) for name, tensor in tensors.items()})
        there, host = self._next_block(packing.size)
        for name, target in packing.tensors(there).items():
            target.copy_(tensors[name].detach())
        host.copy_(there, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(torch.cuda.current_stream(self.device))
        arrived.synchronize()
        self.fetched_bytes += packing.size
        return packing.arrays(host)

    def _next_block(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the older of two blocks (on the device, pinned on the host), anew where it is too small."""
        block = self._blocks.pop(0) if len(self._blocks) == 2 else None
        if block is None or len(block[0]) < size:
            block = (
                torch.empty(size, dtype=torch.uint8, device=self.device),
                torch.empty(size, dtype=torch.uint8, pin_memory=True),
            )
        self._blocks.append(block)
        return block[0][:size], block[1][:size]


def _numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    found: np.dtype[Any] = torch.empty(0, dtype=dtype).numpy().dtype
    return found
