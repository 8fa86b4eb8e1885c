"""Where the observations of a rollout lie: on the host until a minibatch is asked for, or on the device."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch

from lepton_rl.agents.sb3.transfer import Arrays, Shapes, Tensors, Transfer
from lepton_rl.core.arrays import Ints64
from lepton_rl.errors import ConfigError


class Storage(Protocol):
    """Where a rollout's observations lie, by step and environment.

    Attributes:
        nbytes: bytes that they take.
    """

    nbytes: int

    def write(self, step: int, observation: Arrays) -> Tensors:
        """Keep one step's observation, entries (envs, ...), and return it on the device."""

    def batches(self, orders: Sequence[Ints64], beside: Arrays, fresh: bool) -> Iterator[Tensors]:
        """Yield the rows of each order on the device.

        Args:
            orders: rows, counted over the environments of each step.
            beside: further arrays by row, (rows,).
            fresh: whether `beside` is new since the last call.
        """


class HostStorage:
    """Observations in host memory; each minibatch is gathered there and sent as one block."""

    def __init__(self, transfer: Transfer, steps: int, envs: int, shapes: Shapes) -> None:
        self._transfer = transfer
        self._arrays = {name: np.empty((steps, envs, *shape), dtype) for name, (shape, dtype) in shapes.items()}
        self.nbytes = sum(array.nbytes for array in self._arrays.values())

    def write(self, step: int, observation: Arrays) -> Tensors:
        """See `Storage`."""
        for name, array in self._arrays.items():
            array[step] = observation[name]
        return self._transfer.send({name: array[step] for name, array in self._arrays.items()})

    def batches(self, orders: Sequence[Ints64], beside: Arrays, fresh: bool) -> Iterator[Tensors]:
        """See `Storage`."""
        flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in self._arrays.items()} | beside

        def gather(order: Ints64, room: Arrays) -> None:
            for name, array in flat.items():
                # the rows are valid; with mode "raise" NumPy would gather into a buffer of its own first
                np.take(array, order, 0, room[name][: len(order)], "clip")

        longest = max(map(len, orders))
        sender = self._transfer.sender(
            {name: ((longest, *array.shape[1:]), array.dtype) for name, array in flat.items()}
        )  # fmt: skip
        for order, block in zip(orders, sender.batches(orders, gather), strict=True):
            yield {name: tensor[: len(order)] for name, tensor in block.items()}


class DeviceStorage:
    """Observations on the device: each step is sent to its place there once, minibatches are gathered there."""

    def __init__(self, transfer: Transfer, steps: int, envs: int, shapes: Shapes) -> None:
        self._transfer = transfer
        self._envs = envs
        self._sender = transfer.sender({name: ((envs, *shape), dtype) for name, (shape, dtype) in shapes.items()})
        self.nbytes = steps * self._sender.packing.size
        try:
            self._blocks = torch.empty((steps, self._sender.packing.size), dtype=torch.uint8, device=transfer.device)
        except RuntimeError as error:  # torch raises a class of its own for CUDA, this one for a CPU
            raise ConfigError(
                f"a rollout of {steps} steps in {envs} environments takes {self.nbytes / 2**30:.1f} GiB, which "
                f"{transfer.device} does not have free; use training.rollout_on=host, or lower agent.n_steps"
            ) from error
        self._views = self._sender.packing.tensors(self._blocks)
        self._beside: Tensors = {}

    def write(self, step: int, observation: Arrays) -> Tensors:
        """See `Storage`."""
        return self._sender.send(observation, self._blocks[step])

    def batches(self, orders: Sequence[Ints64], beside: Arrays, fresh: bool) -> Iterator[Tensors]:
        """See `Storage`."""
        if fresh:
            self._beside = {name: tensor.clone() for name, tensor in self._transfer.send(beside).items()}
        rows = self._transfer.send({"rows": np.concatenate(orders)})["rows"]
        for part in torch.split(rows, [len(order) for order in orders]):
            step, env = part // self._envs, part % self._envs
            observations = {name: view[step, env] for name, view in self._views.items()}
            yield observations | {name: values[part] for name, values in self._beside.items()}
