"""Gymnasium environments around a GPU cluster. Importing this registers them under `lepton_rl/`."""

import gymnasium

from lepton_rl.envs.batch import EnvironmentBatch
from lepton_rl.envs.codec import Codec
from lepton_rl.envs.episodes import Episodes
from lepton_rl.envs.objective import Objective
from lepton_rl.envs.power_control import PowerControlEnv
from lepton_rl.envs.scheduling import SchedulingEnv
from lepton_rl.envs.vector import SchedulingVectorEnv

_ENTRY_POINTS = {
    "Scheduling-v0": ("scheduling:SchedulingEnv", "vector:SchedulingVectorEnv"),
    "SchedulingPlacement-v0": ("variants:placement_env", "variants:placement_vector_env"),
    "SchedulingPreemptive-v0": ("variants:preemptive_env", "variants:preemptive_vector_env"),
    "SchedulingPower-v0": ("variants:power_env", "variants:power_vector_env"),
    "PowerControl-v0": ("power_control:PowerControlEnv", None),
}
for _name, (_single, _vector) in _ENTRY_POINTS.items():
    if f"lepton_rl/{_name}" not in gymnasium.registry:
        gymnasium.register(
            id=f"lepton_rl/{_name}",
            entry_point=f"{__name__}.{_single}",
            vector_entry_point=None if _vector is None else f"{__name__}.{_vector}",
        )

__all__ = [
    "Codec",
    "EnvironmentBatch",
    "Episodes",
    "Objective",
    "PowerControlEnv",
    "SchedulingEnv",
    "SchedulingVectorEnv",
]
