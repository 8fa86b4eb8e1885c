"""Users of this machine by number: their names, their groups, and whose jobs a shared node runs."""

import os
import pwd
from dataclasses import dataclass

from lepton_rl.errors import JobError


class StartRefused(JobError):
    """A job may not run here, now or later."""

    lasting = True


class UnknownUser(JobError):
    """No account has this number, as far as the account database can tell now."""


def user_name(uid: int) -> str:
    """Return the name of a user's account, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return str(uid)


@dataclass(frozen=True, slots=True)
class Account:
    """What a process of a user's is: user, first group, all groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobUsers:
    """Whose jobs a shared node runs. The daemon asks at submission, the launcher before each start.

    Attributes:
        service_uid: the daemon's own; its jobs could read the journal and end the daemon, so it has none.
        min_uid: below are the accounts of the system.
        also: users below it whose jobs run all the same.
        root_jobs: whether root's do.
        without_account: whether a number that no account has may run jobs: in the group of the same number, alone,
            since the account database has no groups for it.
    """

    service_uid: int
    min_uid: int = 1000
    also: frozenset[int] = frozenset()
    root_jobs: bool = False
    without_account: bool = False

    def check(self, uid: int) -> Account:
        """Return what a job of this user runs as.

        Raises:
            JobError: jobs of this user do not run here; `UnknownUser` where that may change.
        """
        if uid == self.service_uid:
            raise JobError(f"user {user_name(uid)} is the node's own account; submit as the user whose job it is")
        if uid == 0 and not self.root_jobs:
            raise JobError("jobs do not run as root here; submit as another user, or set shared.root_jobs")
        if 0 < uid < self.min_uid and uid not in self.also:
            raise JobError(
                f"user {user_name(uid)} has number {uid}, below {self.min_uid}: jobs do not run as an account of the "
                "system; shared.also names exceptions"
            )
        try:
            entry = pwd.getpwuid(uid)
        except (KeyError, OverflowError):
            if self.without_account and 0 < uid < 2**32 - 1:
                return Account(uid, uid, (uid,))
            raise UnknownUser(f"user {uid} is not known to this machine") from None
        return Account(uid, entry.pw_gid, tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)))
