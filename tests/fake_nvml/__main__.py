"""Makes a fake driver and prints the shell lines that lead programs to it: eval "$(python -m tests.fake_nvml DIR)"."""

import argparse
import shlex
from pathlib import Path

from tests.fake_nvml import FakeNvml, build_fake_nvml
from tests.fake_nvml.control import VARIABLE


def main() -> None:
    """Build the library and the state file in a folder."""
    parser = argparse.ArgumentParser(prog="python -m tests.fake_nvml", description=__doc__)
    parser.add_argument("folder", type=Path, help="where library and state are kept")
    parser.add_argument("--gpus", type=int, default=2, help="number of fake GPUs, up to 16 (default: 2)")
    given = parser.parse_args()
    folder = given.folder.resolve()
    library = build_fake_nvml(folder)
    FakeNvml(folder / "state", gpus=given.gpus).close()
    print(f"export {VARIABLE}={shlex.quote(str(folder / 'state'))}")
    print(f"export LD_LIBRARY_PATH={shlex.quote(str(library.parent))}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}")


if __name__ == "__main__":
    main()
