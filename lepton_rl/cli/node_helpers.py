"""`lepton-rl node`: the helpers of a daemon that run as root, one for power limits and one that starts jobs."""

from pathlib import Path
from typing import Annotated

import typer

from lepton_rl.cli.node import State, app
from lepton_rl.cli.quantities import seconds
from lepton_rl.errors import NodeError


@app.command("power-helper")
def power_helper(
    user: Annotated[str, typer.Option(help="The user that the daemon runs as; nobody else may call.")],
    socket: Annotated[Path, typer.Option(help="Where it listens; `power.helper` of the node's configuration.")],
    folder: Annotated[Path, typer.Option(help="Where it keeps what is to be restored.")] = Path("/var/lib/lepton-rl"),
    library: Annotated[Path | None, typer.Option(help="libnvidia-ml.so.1, where it lies elsewhere.")] = None,
    lease: Annotated[str, typer.Option(help="Silence after which everything is restored.")] = "60s",
) -> None:
    """Set, renew and restore power limits for a daemon that is not root. Run it as root, under systemd.

    Example: lepton-rl node power-helper --user lepton --socket /run/lepton-rl/power.sock
    """
    import logging
    import pwd

    from lepton_rl.devices import NvmlDevices
    from lepton_rl.node.power_helper import run_power_helper

    try:
        uid = pwd.getpwnam(user).pw_uid
    except KeyError:
        raise NodeError(f"there is no user {user!r} on this machine") from None
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with NvmlDevices(library) as devices:
        run_power_helper(devices, folder, socket.absolute(), uid, seconds(lease, "--lease"))


@app.command()
def launcher(
    config: Annotated[Path, typer.Option("--config", help="The node's YAML file, with mode: shared; root's own.")],
    state: State = None,
) -> None:
    """Start jobs as the users who submitted them, for the daemon of a shared node. Run it as root, under systemd.

    Example: lepton-rl node launcher --config /etc/lepton-rl/node.yaml
    """
    import os
    import sys

    from lepton_rl.experiments.deploy import read_node_config
    from lepton_rl.experiments.sharing import launcher_rules

    rules = launcher_rules(config, read_node_config(config), state)
    # A program of its own: what reads the file, and all that comes with it, is not part of what stays root.
    os.execv(sys.executable, [sys.executable, "-P", "-m", "lepton_rl.node.launcher", rules.to_json()])
