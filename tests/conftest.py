"""Settings that all tests share."""

import os

from hypothesis import settings

# Functions may compile inside any example: no deadline. Examples are the same every time, so that
# a failure repeats on the next machine. HYPOTHESIS_PROFILE=explore draws new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
