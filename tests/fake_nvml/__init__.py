"""A fake NVIDIA driver library for tests: real clients of NVML run on it unchanged."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.fake_nvml.control import FakeNvml
from tests.fake_nvml.layout import c_header

__all__ = ["LIBRARY", "FakeNvml", "build_fake_nvml", "compiler"]

LIBRARY = "libnvidia-ml.so.1"
_SOURCE = Path(__file__).with_name("fake_nvml.c")
_FLAGS = ("-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread")


def compiler() -> str | None:
    """Return the C compiler, or None where there is none."""
    return shutil.which("gcc") or shutil.which("cc")


def build_fake_nvml(folder: Path) -> Path:
    """Return the library in a subfolder of `folder`, compiled unless these very sources were compiled before."""
    command = compiler()
    if command is None:
        raise FileNotFoundError("the fake driver needs a C compiler: gcc or cc")
    header = c_header()
    digest = hashlib.sha256((header + _SOURCE.read_text() + " ".join(_FLAGS)).encode()).hexdigest()[:16]
    library = folder / digest / LIBRARY
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as temporary:
            work = Path(temporary)
            (work / "layout.h").write_text(header)
            built = work / LIBRARY
            arguments = [command, *_FLAGS, f"-I{work}", f"-Wl,-soname,{LIBRARY}", "-o", str(built), str(_SOURCE)]
            subprocess.run(arguments, check=True)
            built.replace(library)  # processes may build side by side
    return library
