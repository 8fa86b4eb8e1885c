"""Rows of the transfers: bytes that training sends to the device for a step, memory of a rollout, speed beside SB3.

All sides have the same jobs, full observation (K = 128), network (deepsets), rollout and minibatches. Bytes are counted
from the layout of what is sent; on a CUDA device the count of what was sent stands beside it. On a CPU nothing crosses,
and the speeds compare the copies that are left out.
"""

import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.environments import ENVS, EPISODE, SMALL, WINDOW
from benchmarks.rows import Row
from lepton_rl.envs import Codec, EnvironmentBatch, Episodes, Objective
from lepton_rl.envs.quantization import OBSERVATION_DTYPES, quantization_for

EPOCHS = 4
BATCH = 1024
N_STEPS = 128
CODEC = Codec(window=WINDOW)
BESIDE_BYTES = 8 + 4 * 4  # action; old value, old log probability, advantage, return
INDEX_BYTES = 8


class Side:
    """One way to train, measured in turns with the others."""

    def __init__(self, name: str, dtype: str, on_device: bool, device: str, n_steps: int) -> None:
        from sb3_contrib import MaskablePPO

        from lepton_rl.agents.sb3.algorithms import make_algorithm
        from lepton_rl.agents.sb3.networks import MaskableSchedulingPolicy
        from lepton_rl.agents.sb3.vec_env import BatchVecEnv

        batch = EnvironmentBatch(Episodes([SMALL.trace(8)], EPISODE), SMALL.cluster, CODEC, Objective(), ENVS)
        self.name = name
        self.dtype = dtype
        self.on_device = on_device
        self.env = BatchVecEnv(batch, 0, quantization=quantization_for(dtype, CODEC, SMALL.cluster))
        self.rollout = n_steps * ENVS
        settings: dict[str, Any] = {"n_steps": n_steps, "batch_size": BATCH, "n_epochs": EPOCHS}
        if name == "stock SB3":
            self.model: Any = MaskablePPO(
                MaskableSchedulingPolicy, self.env, seed=0, device=device, normalize_advantage=False, **settings
            )
        else:
            settings["rollout_buffer_kwargs"] = {"on_device": on_device}
            self.model = make_algorithm("maskable_ppo", self.env, settings, {}, 0, device, None)
        self.best = float("inf")

    def turn(self) -> None:
        """Train on one rollout and keep the least time."""
        began = time.perf_counter()
        self.model.learn(self.rollout, reset_num_timesteps=False)
        self.best = min(self.best, time.perf_counter() - began)

    @property
    def steps_per_second(self) -> float:
        """Environment steps per wall second."""
        return self.rollout / self.best

    def bytes_per_step(self) -> float:
        """Bytes to the device for each environment step, the gaps between aligned arrays included."""
        from lepton_rl.agents.sb3.transfer import Packing

        n_steps = self.rollout // ENVS
        space: Any = self.env.observation_space
        entries = {name: (entry.shape, entry.dtype) for name, entry in space.spaces.items()}
        if self.name == "stock SB3":  # the mask goes a second time, as float32
            row = Packing(entries).used
            again = row + 4 * int(space["action_mask"].n) + BESIDE_BYTES
            return row * (n_steps + 1) / n_steps + EPOCHS * again
        step = Packing({name: ((ENVS, *shape), dtype) for name, (shape, dtype) in entries.items()}).size
        steps = step / ENVS * (n_steps + 1) / n_steps  # the last observation is sent for its value
        if self.on_device:
            return steps + BESIDE_BYTES + EPOCHS * INDEX_BYTES
        batch = Packing({name: ((BATCH, *shape), dtype) for name, (shape, dtype) in entries.items()}).size
        return steps + EPOCHS * (batch / BATCH + BESIDE_BYTES)

    def rollout_bytes(self) -> int:
        """Bytes of a rollout's observations and masks."""
        buffer = self.model.rollout_buffer
        if self.name != "stock SB3":
            return int(buffer.nbytes)
        return sum(int(array.nbytes) for array in (*buffer.observations.values(), buffer.action_masks))


def transfers(quick: bool) -> Iterator[Row]:
    """Bytes and memory for each dtype, and steps per second against stock SB3 on the same device."""
    import torch

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        print(" torch sees no CUDA GPU here: bytes are counted and the path on the CPU is timed ...", end="",
              file=sys.stderr)  # fmt: skip
    n_steps = BATCH // ENVS if quick else N_STEPS
    stock = Side("stock SB3", "float32", False, device, n_steps)
    ours = [
        Side(f"{dtype}, rollout on the {'device' if on_device else 'host'}", dtype, on_device, device, n_steps)
        for on_device in (False, True) for dtype in OBSERVATION_DTYPES
    ]  # fmt: skip
    for _ in range(1 if quick else 4):  # the first turn warms up
        for side in (stock, *ours):
            side.turn()
    for side in (stock, *ours):
        yield _row(side, stock, device)


def _row(side: Side, stock: Side, device: str) -> Row:
    details: dict[str, float | str] = {
        "device": device,
        "bytes to a GPU for a step": side.bytes_per_step(),
        "MiB of a rollout's observations": side.rollout_bytes() / 2**20,
        "rollout, steps": side.rollout,
    }
    ratio = None
    if side is not stock:
        ratio = side.steps_per_second / stock.steps_per_second
        details["bytes against stock"] = side.bytes_per_step() / stock.bytes_per_step()
        if device == "cuda":
            steps = side.model.num_timesteps
            transfer = side.model.rollout_buffer.transfer
            details["bytes sent for a step, counted"] = transfer.sent_bytes / steps
            details["bytes fetched for a step, counted"] = transfer.fetched_bytes / steps
    return Row(f"transfers, {side.name}", side.steps_per_second, "steps/s", None, ratio, details)
