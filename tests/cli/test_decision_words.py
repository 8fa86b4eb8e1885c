"""Decisions are told in sentences, whatever stands in the journal."""

import pytest

from lepton_rl.cli.decision_words import action_words, decision_line
from lepton_rl.core.actions import Action, Migrate, Preempt, SetPowerLimit, Start
from lepton_rl.node.actions import from_text

NAMES = {17: "train", 18: "evil\x1b[2J"}


@pytest.mark.parametrize(
    ("action", "sentence"),
    [
        (Start(17, (0,)), "job 17 (train) starts on GPU 0"),
        (Start(3, (0, 2)), "job 3 starts on GPUs 0, 2"),
        (Start(3), "job 3 starts"),
        (Migrate(17, (1,)), "job 17 (train) moves to GPU 1"),
        (Migrate(17), "job 17 (train) moves"),
        (Preempt(18), "job 18 (evil\ufffd[2J) is stopped for others and waits again"),
        (SetPowerLimit(1, 250.0), "GPU 1 may draw 250 W"),
        (SetPowerLimit(1), "GPU 1 goes back to its own power limit"),
    ],
)
def test_actions_in_sentences(action: Action, sentence: str) -> None:
    assert from_text(str(action)) == action
    assert action_words(str(action), NAMES) == sentence


@pytest.mark.parametrize(
    "text",
    ["", "Start", "Start(job=1", "Start(job='x')", "Start(job=open('/'))", "Stop(job=1)", "x.Start(job=1)", "\0"],
)
def test_what_is_no_action_stays_as_it_is(text: str) -> None:
    assert from_text(text) is None
    assert action_words(text, NAMES) == text


def test_a_line_says_who_decided_what_and_why() -> None:
    detail = {"by": "fcfs", "actions": ["Start(job=17, gpus=(0,))"], "count": 3}
    decision = {"time": 0.0, "decision_s": 42e-6, "fallback_reason": "late", "detail": detail}
    line = decision_line(decision, NAMES)
    assert line.endswith(" fcfs (42 µs): job 17 (train) starts on GPU 0; and 2 more; the fallback decided: late")
    nothing = {**decision, "fallback_reason": None, "detail": {"by": "saf", "actions": []}}
    assert decision_line(nothing, NAMES).endswith(" saf (42 µs): nothing is done")
