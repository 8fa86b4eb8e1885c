"""What happens behind a job that does not fit."""

from enum import IntEnum


class Blocking(IntEnum):
    """The blocking rules.

    | blocking | rule |
    |---|---|
    | head | start in order up to the first job that does not fit |
    | skip | walk the whole order and start each job that fits |
    | easy | as head; then any later job that does not delay the predicted start of the first blocked one |
    | conservative | every job gets a reservation in order; those whose reservation is now start |
    """

    HEAD = 0
    SKIP = 1
    EASY = 2
    CONSERVATIVE = 3


HEAD, SKIP, EASY, CONSERVATIVE = (int(rule) for rule in Blocking)
