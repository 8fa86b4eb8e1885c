"""What makes a node one of several users: whose jobs run, who may call, who operates it, and who starts jobs for it."""

import os
from dataclasses import dataclass
from pathlib import Path

from lepton_rl.errors import NodeError
from lepton_rl.node.accounts import JobUsers, user_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """A shared node.

    Attributes:
        socket: where the daemon listens.
        group: number of the group whose members may call.
        operator_group: number of the group whose members are operators; None for only those named one by one.
        launcher: socket of the launcher.
        users: whose jobs run; the daemon's own account is among it.
        service_gid: the daemon's own group, which reads what supervisors and jobs write.
    """

    socket: Path
    group: int
    operator_group: int | None
    launcher: Path
    users: JobUsers
    service_gid: int

    def check_process(self) -> None:
        """Refuse to be the daemon as another user than its account: root least of all.

        Raises:
            NodeError: says who should run it.
        """
        wanted = self.users.service_uid
        if os.geteuid() != wanted or self.service_gid not in (os.getegid(), *os.getgroups()):
            raise NodeError(
                f"mode: shared: the daemon runs as user {user_name(wanted)} in group {self.service_gid}, not as "
                f"{user_name(os.geteuid())} in group {os.getegid()}; start it by its systemd unit"
            )
        if self.group not in (os.getegid(), *os.getgroups()):
            raise NodeError(
                f"mode: shared: user {user_name(wanted)} is no member of group {self.group}, to which the socket is to "
                "be opened; add it, or name the group in SupplementaryGroups= of its unit"
            )
