"""Policies: heuristics, planners, and the registry that makes one from a name, a file or a bundle."""

from lepton_rl.agents.allocation_lp import Allocation, allocate
from lepton_rl.agents.attained import DiscretisedLas, Gittins, gittins_index
from lepton_rl.agents.best_fit import BestFit
from lepton_rl.agents.cheapest import Cheapest
from lepton_rl.agents.compiled import (
    BlockingName,
    CompiledPolicy,
    PlacementName,
    RuleNames,
    RulePolicy,
    policy_name,
    rule_names,
)
from lepton_rl.agents.dot_product import DotProduct
from lepton_rl.agents.drf import Drf
from lepton_rl.agents.energy import Energy
from lepton_rl.agents.fgd import Fgd
from lepton_rl.agents.finish_time import FinishTimeFairness
from lepton_rl.agents.gavel import GavelMaxMin, GavelMaxThroughput
from lepton_rl.agents.genetic import Genetic, Plan
from lepton_rl.agents.gpu_clustering import GpuClustering
from lepton_rl.agents.gpu_packing import GpuPacking
from lepton_rl.agents.greedy import Greedy
from lepton_rl.agents.greenest import Greenest
from lepton_rl.agents.least_loaded import LeastLoaded
from lepton_rl.agents.optimum import MOST_JOBS, Optimum, optimum
from lepton_rl.agents.predicted import Predicted
from lepton_rl.agents.priority import (
    SCORES,
    SLOWDOWN_TUNING,
    HeapPriority,
    Power,
    Priority,
    Random,
    Reserve,
    ReserveSlowdown,
    Score,
    heap_order,
    weighted_priority,
)
from lepton_rl.agents.registry import PolicyInfo, Setting, make_policy, policies, with_rules
from lepton_rl.agents.run import NamingCluster, check_requested_times, run_on, run_policy
from lepton_rl.agents.shares import ShareProblem, max_min_shares, max_throughput_shares
from lepton_rl.agents.weighted_placement import WeightedPlacement

__all__ = [
    "MOST_JOBS",
    "SCORES",
    "SLOWDOWN_TUNING",
    "Allocation",
    "BestFit",
    "BlockingName",
    "Cheapest",
    "CompiledPolicy",
    "DiscretisedLas",
    "DotProduct",
    "Drf",
    "Energy",
    "Fgd",
    "FinishTimeFairness",
    "GavelMaxMin",
    "GavelMaxThroughput",
    "Genetic",
    "Gittins",
    "GpuClustering",
    "GpuPacking",
    "Greedy",
    "Greenest",
    "HeapPriority",
    "LeastLoaded",
    "NamingCluster",
    "Optimum",
    "PlacementName",
    "Plan",
    "PolicyInfo",
    "Power",
    "Predicted",
    "Priority",
    "Random",
    "Reserve",
    "ReserveSlowdown",
    "RuleNames",
    "RulePolicy",
    "Score",
    "Setting",
    "ShareProblem",
    "WeightedPlacement",
    "allocate",
    "check_requested_times",
    "gittins_index",
    "heap_order",
    "make_policy",
    "max_min_shares",
    "max_throughput_shares",
    "optimum",
    "policies",
    "policy_name",
    "rule_names",
    "run_on",
    "run_policy",
    "weighted_priority",
    "with_rules",
]
