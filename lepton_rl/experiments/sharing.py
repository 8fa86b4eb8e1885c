"""From a node's file to who shares it: users and groups by their names, and the rules of its launcher."""

import grp
import os
import pwd
import stat
from pathlib import Path

from lepton_rl.errors import ConfigError, nearest
from lepton_rl.experiments.node_config import JobsConfig, NodeConfig
from lepton_rl.node.accounts import JobUsers
from lepton_rl.node.environment import RunSettings
from lepton_rl.node.launcher import LauncherRules
from lepton_rl.node.paths import SHARED_STATE_DIR, default_state_dir
from lepton_rl.node.sharing import Sharing

MIB = 1 << 20


def state_folder_of(config: NodeConfig, named: Path | None = None) -> Path:
    """Return the folder of a node's state: the one named, the configuration's, or that of its mode."""
    if named is None and config.state_dir is not None:
        named = Path(config.state_dir)
    if named is None:
        named = SHARED_STATE_DIR if config.mode == "shared" else default_state_dir()
    return named.expanduser().absolute()


def sharing_of(config: NodeConfig) -> Sharing | None:
    """Return who shares a node, None for a personal one.

    Raises:
        ConfigError: a user or a group is not known to this machine.
    """
    if config.mode == "personal":
        return None
    shared = config.shared
    operators = shared.operators_group
    service_uid, service_gid = _service(shared.account)
    group = _group_id("shared.group", shared.group)
    if group == service_gid:
        raise ConfigError(
            f"shared.group: {shared.group} is the own group of account {shared.account}, which reads all logs; name "
            "another one, of the users"
        )
    return Sharing(
        socket=Path(shared.socket),
        group=group,
        operator_group=None if operators is None else _group_id("shared.operators_group", operators),
        launcher=Path(shared.launcher),
        users=JobUsers(
            service_uid=service_uid,
            min_uid=shared.min_uid,
            also=frozenset(user_id("shared.also", name) for name in shared.also),
            root_jobs=shared.root_jobs,
            without_account=shared.without_account,
        ),
        service_gid=service_gid,
    )


def run_settings(jobs: JobsConfig) -> RunSettings:
    """Return what holds for all jobs of a node."""
    return RunSettings(
        log_bytes_limit=round(jobs.log_megabytes * MIB),
        umask=jobs.umask,
        rlimits=jobs.rlimits,
        mps_pipe_directory=None if jobs.mps_pipe_directory is None else Path(jobs.mps_pipe_directory),
    )


def launcher_rules(file: Path, config: NodeConfig, state_dir: Path | None = None) -> LauncherRules:
    """Return what the launcher of a shared node is started with.

    Raises:
        ConfigError: the file is not of a shared node, or others than root can write it.
    """
    found = file.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise ConfigError(f"{file}: the launcher believes it, so it must be root's and nobody else may write it")
    sharing = sharing_of(config)
    if sharing is None:
        raise ConfigError(f"{file}: a personal node has no launcher; write mode: shared for one of several users")
    folder = state_folder_of(config, state_dir)
    return LauncherRules(folder, sharing.launcher, sharing.users, sharing.service_gid, run_settings(config.jobs))


def user_id(key: str, name: str | int) -> int:
    """Return the number of a user, given by name or number.

    Raises:
        ConfigError: names the key; there is no such user.
    """
    if isinstance(name, int) or name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        known = [entry.pw_name for entry in pwd.getpwall()]
        raise ConfigError(f"{key}: there is no user {name!r} on this machine{nearest(name, known)}") from None


def _group_id(key: str, name: str | int) -> int:
    if isinstance(name, int) or name.isdecimal():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        known = [entry.gr_name for entry in grp.getgrall()]
        raise ConfigError(f"{key}: there is no group {name!r} on this machine{nearest(name, known)}") from None


def _service(name: str | int) -> tuple[int, int]:
    """Return user and group of the daemon's account; a number without account has the group of the same number."""
    uid = user_id("shared.account", name)
    if uid == 0:
        raise ConfigError("shared.account: the daemon of a shared node is not root; name an account made for it")
    try:
        return uid, pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid, uid
