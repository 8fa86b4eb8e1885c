"""`lepton-rl policies` and `lepton-rl configs`: what there is."""

from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated

import typer

from lepton_rl.cli.options import Overwrite, command_group, output_argument
from lepton_rl.cli.printing import note, print_json

if TYPE_CHECKING:
    from lepton_rl.agents import PolicyInfo

configs = command_group(
    "List the experiment files that come with lepton_rl, and copy them.",
    "Example: lepton-rl configs copy benchmark/quickstart.yaml",
)


def policies(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List every policy that has a name, with its settings and their defaults.

    A setting is given as `--set KEY=VALUE` to `simulate`, and beside the name in an experiment file.

    Example: lepton-rl policies
    """
    from dataclasses import asdict

    from lepton_rl.agents import policies as known

    if json:
        print_json({"policies": [asdict(info) for info in known()]})
        return
    width = max(len(info.name) for info in known())
    for info in known():
        typer.echo(f"{info.name:<{width}}  {info.summary}")
        settings = ", ".join(
            f"{setting.name}={setting.default}" for setting in info.settings if setting.default != "none"
        )
        typer.echo(f"{'':<{width}}  {settings}")
    choices = {setting.name: setting.type for info in known() for setting in info.settings if setting.default == "none"}
    for name, words in choices.items():
        without = ", ".join(info.name for info in known() if name not in _open_settings(info))
        taken = f"also take {name}={words.removesuffix('|none')}; without it, the cluster's: first."
        typer.echo("\n" + fill(f"All but {without} {taken}", 100, break_on_hyphens=False))


def _open_settings(info: "PolicyInfo") -> list[str]:
    """Return the settings that something else decides where they are left out."""
    return [setting.name for setting in info.settings if setting.default == "none"]


@configs.command("list")
def list_configs() -> None:
    """Print the name and the first line of every experiment file.

    Example: lepton-rl configs list
    """
    from lepton_rl.experiments.shipped import shipped_configs

    found = shipped_configs()
    width = max(len(config.name) for config in found)
    for config in found:
        typer.echo(f"{config.name:<{width}}  {config.summary}")


@configs.command("copy")
def copy_config(
    name: Annotated[str, typer.Argument(help="As `configs list` prints it, e.g. benchmark/quickstart.yaml.")],
    to: Annotated[
        Path, output_argument("DIR", "Folder to copy into, or a name of its own that ends in .yaml.")
    ] = Path(),
    overwrite: Overwrite = False,
) -> None:
    """Copy an experiment file, to change it.

    Example: lepton-rl configs copy benchmark/quickstart.yaml experiments
    """
    from lepton_rl.experiments.shipped import copy_shipped

    note(f"copied to {copy_shipped(name, to, overwrite)}")
