"""Settings that all tests share."""

import os

from hypothesis import settings

# Compiled functions may compile inside any example, so examples have no deadline. The same examples every time:
# a failure repeats on the next machine. HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))
