"""How many of one unit make another."""

SECONDS_PER_HOUR = 3600.0
JOULES_PER_KWH = 3.6e6
JOULES_PER_MWH = 3.6e9
