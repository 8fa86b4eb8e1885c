"""What the Makefile would do, without doing it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_the_quickstart_makes_a_folder_of_its_own_and_deletes_nothing() -> None:
    outer = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    done = subprocess.run(
        ["make", "--dry-run", "quickstart"], cwd=ROOT, env=outer, capture_output=True, text=True, check=True
    )
    train, benchmark = done.stdout.splitlines()[-2:]
    folder = train.rpartition(" --out ")[2]
    assert folder.startswith("runs/make-quickstart-2")
    assert not (ROOT / folder).exists()
    assert benchmark.endswith(f" 'policies.+={{name: {folder}, label: quickstart}}' --out {folder}")
    assert "rm " not in done.stdout
