"""A cluster that exists only as arrays, compiled."""

from lepton_rl.simulator.blocking import Blocking
from lepton_rl.simulator.cluster import SimulatedCluster
from lepton_rl.simulator.decisions import decide
from lepton_rl.simulator.rules import Rule, Timing
from lepton_rl.simulator.scores import Order
from lepton_rl.simulator.trace_run import run_trace

__all__ = ["Blocking", "Order", "Rule", "SimulatedCluster", "Timing", "decide", "run_trace"]
