"""Gymnasium environments around a GPU cluster. Importing this registers `lepton_rl/Scheduling-v0`."""

import gymnasium

from lepton_rl.envs.batch import EnvironmentBatch
from lepton_rl.envs.codec import Codec
from lepton_rl.envs.episodes import Episodes
from lepton_rl.envs.objective import Objective
from lepton_rl.envs.scheduling import SchedulingEnv
from lepton_rl.envs.vector import SchedulingVectorEnv

if "lepton_rl/Scheduling-v0" not in gymnasium.registry:
    gymnasium.register(
        id="lepton_rl/Scheduling-v0",
        entry_point="lepton_rl.envs.scheduling:SchedulingEnv",
        vector_entry_point="lepton_rl.envs.vector:SchedulingVectorEnv",
    )

__all__ = ["Codec", "EnvironmentBatch", "Episodes", "Objective", "SchedulingEnv", "SchedulingVectorEnv"]
