"""Reinforcement learning for scheduling jobs on GPU clusters: train, benchmark, deploy one policy."""

__version__ = "0.1.0"
