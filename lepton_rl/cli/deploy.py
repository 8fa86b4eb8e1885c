"""`lepton-rl deploy`: one word from a policy to a node that it decides on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lepton_rl.cli.node import State, connect, launch
from lepton_rl.cli.printing import note
from lepton_rl.errors import NodeError

if TYPE_CHECKING:
    from lepton_rl.node.setup import NodeSetup


def deploy(
    policy: Annotated[str, typer.Argument(metavar="BUNDLE|NAME", help="Path of a bundle, or name of a policy.")],
    config: Annotated[Path | None, typer.Option("--config", help="YAML file of the node; see configs/node.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Do it: start the daemon, or switch the one that runs.")] = False,
    state: State = None,
) -> None:
    """Say whether a policy can decide on this machine and what it would do; with --live let it.

    A daemon that runs already is replaced, and brought back if the new one does not come up; its jobs go on.

    Example: lepton-rl deploy runs/mine --live
    """
    from lepton_rl.experiments.deploy import check_http, check_power, describe, node_setup, read_node_config
    from lepton_rl.node.database import check_file
    from lepton_rl.node.former import remember, replaced
    from lepton_rl.node.hardware import describe_hardware
    from lepton_rl.node.job_folders import check_journal_is_there
    from lepton_rl.node.paths import JOURNAL
    from lepton_rl.node.setup import check_can_start
    from lepton_rl.node.start import wait_until_gone

    wanted = read_node_config(config)
    setup = node_setup(wanted, policy, state)
    check_can_start(setup.state_dir)
    check_journal_is_there(setup.state_dir)
    if (setup.state_dir / JOURNAL).exists():
        check_file(setup.state_dir / JOURNAL)
    with setup.open_devices() as devices:
        hardware, simulated = describe_hardware(devices.identities), devices.simulated
    kind = " (simulated devices, no hardware)" if simulated else ""
    lines = [f"this node has {hardware.cluster}{kind}", *hardware.notes, *setup.check(hardware)]
    for line in (*lines, *describe(hardware.cluster, setup, wanted)):
        typer.echo(line)
    check_power(wanted.power)
    check_http(setup.http, setup.state_dir)
    running = _running(setup)
    if not live:
        typer.echo(f"{_would(running)}; --live does it")
        return
    if running is None:
        launch(setup, policy, config)
        return
    former = remember(running)
    with connect(setup.state_dir) as client:
        client.call("stop")
    wait_until_gone(running["pid"])
    note(f"the daemon under {running['policy']} has ended; jobs go on")
    try:
        launch(setup, policy, config)
    except NodeError as error:
        raise replaced(error, former, setup.state_dir, setup.socket) from None


def _would(running: dict[str, Any] | None) -> str:
    if running is None:
        return "nothing was started"
    return f"a daemon runs under {running['policy']} (process {running['pid']}) and would be replaced; nothing was done"


def _running(setup: "NodeSetup") -> dict[str, Any] | None:
    """What the daemon that runs there says of itself, if one does."""
    try:
        with connect(setup.state_dir) as client:
            about: dict[str, Any] = client.call("ping")
            return about
    except NodeError:
        return None
