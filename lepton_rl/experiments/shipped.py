"""The experiment files that come with lepton_rl: in the wheel, or in `configs/` of a checkout."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from lepton_rl.errors import ConfigError, nearest
from lepton_rl.experiments.outputs import check_output_file


@dataclass(frozen=True, slots=True)
class ShippedConfig:
    """One file: its name ("benchmark/quickstart.yaml"), its first comment line, its text."""

    name: str
    summary: str
    text: str


def shipped_configs() -> list[ShippedConfig]:
    """Return the experiment files, by name.

    Raises:
        ConfigError: they were not installed.
    """
    for home in (resources.files("lepton_rl") / "configs", Path(__file__).parents[2] / "configs"):
        if home.is_dir():
            found = [
                _shipped(f"{group.name}/{file.name}", file.read_text(encoding="utf-8"))
                for group in home.iterdir()
                if group.is_dir()
                for file in group.iterdir()
                if file.name.endswith(".yaml")
            ]
            return sorted(found, key=lambda config: config.name)
    raise ConfigError("this installation of lepton_rl holds no experiment files")


def copy_shipped(name: str, to: Path, overwrite: bool = False) -> Path:
    """Copy one of the files and return the copy's path.

    Args:
        name: as `shipped_configs` has it, or shorter where that says which.
        to: a folder, which is made if needed; or, if it ends in .yaml and is no folder, the copy itself.
        overwrite: replace a copy that is there.

    Raises:
        ConfigError: no file has that name, or it cannot be written.
    """
    found = {config.name: config for config in shipped_configs()}
    short = [full for full in found if name in (full.removesuffix(".yaml"), Path(full).name, Path(full).stem)]
    if name not in found and len(short) == 1:
        name = short[0]
    if name not in found:
        bare = [full.removesuffix(".yaml") for full in found]  # what every name ends in is no likeness
        close = nearest(name.removesuffix(".yaml"), [*bare, *(Path(full).name for full in bare)])
        said = f"{name!r} may be {' or '.join(short)}" if short else f"no file is called {name!r}{close}"
        raise ConfigError(f"{said}; see: lepton-rl configs list")
    if to.is_file() and to.suffix != ".yaml":
        raise ConfigError(f"{to}: is a file; name a folder, or a file that ends in .yaml")
    target = to if to.suffix == ".yaml" and not to.is_dir() else to / Path(name).name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        check_output_file(target, overwrite)
        target.write_text(found[name].text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror or error}") from None
    return target


def _shipped(name: str, text: str) -> ShippedConfig:
    first = text.splitlines()[0] if text else ""
    return ShippedConfig(name, first.removeprefix("#").strip() if first.startswith("#") else "", text)
