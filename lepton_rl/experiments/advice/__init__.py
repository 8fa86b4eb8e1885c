"""Advice on a workload: each idea is a file that looks for changes, and every change is simulated."""

from lepton_rl.experiments.advice.advise import Assumptions, Report, advise, default_policy
from lepton_rl.experiments.advice.candidate import LEAST_GAIN, MOST_LOSS, Advice, Candidate, Change, is_worth
from lepton_rl.experiments.advice.setup import FIGURES
from lepton_rl.experiments.advice.study import LeftOut, Study

__all__ = [
    "FIGURES",
    "LEAST_GAIN",
    "MOST_LOSS",
    "Advice",
    "Assumptions",
    "Candidate",
    "Change",
    "LeftOut",
    "Report",
    "Study",
    "advise",
    "default_policy",
    "is_worth",
]
