"""Which jobs and GPUs the steps of a decision are about, ahead of reservations; by hand, in seconds from now."""

import math

from lepton_rl.node.reservations import Window, windows

NONE = math.inf


def test_without_reservations_ahead_one_step_shows_all() -> None:
    assert windows({(100.0, 1), (50.0, 2)}, [NONE, NONE]) == [Window(100.0)]
    assert windows({(100.0, 1)}, [200.0, NONE]) == [Window(100.0)]
    assert windows(set(), [10.0]) == [Window(0.0)]


def test_shorter_jobs_have_a_step_of_their_own_before_each_reservation() -> None:
    asked = {(100.0, 1), (40.0, 1), (5.0, 1)}
    assert windows(asked, [10.0, 50.0]) == [Window(100.0), Window(50.0), Window(10.0, 40.0)]
    first, second, third = windows(asked, [10.0, 50.0])
    assert [step.offers(50.0) for step in (first, second, third)] == [False, True, False]  # kept for the job of 40 s
    assert [step.offers(10.0) for step in (first, second, third)] == [False, False, True]
    assert [step.shows(40.0) for step in (first, second, third)] == [True, True, False]


def test_gpus_are_kept_only_for_jobs_that_they_are_enough_for() -> None:
    assert windows({(100.0, 1), (5.0, 1)}, [10.0, NONE])[1] == Window(10.0, 100.0)
    assert windows({(100.0, 2), (5.0, 1)}, [10.0, NONE])[1] == Window(10.0)


def test_a_step_without_jobs_is_left_out_and_what_may_be_moved_counts() -> None:
    assert windows({(100.0, 1)}, [10.0, NONE]) == [Window(100.0)]
    assert windows({(5.0, 1)}, [10.0, NONE], [100.0]) == [Window(100.0), Window(10.0)]
