"""`python -m lepton_rl.cli`."""

import sys

from lepton_rl.cli import main

sys.exit(main())
