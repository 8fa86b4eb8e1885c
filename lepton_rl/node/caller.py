"""Who asks something of a node."""

from dataclasses import dataclass

from lepton_rl.node.jobs import JobRecord


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the user that the kernel or a token names, whether as an operator, or as one who looks at all jobs."""

    uid: int
    user: str
    operator: bool = False
    looks: bool = False

    def may_touch(self, record: JobRecord) -> bool:
        """Whether a job is the caller's own, or the caller an operator."""
        return self.operator or (record.request.uid, record.request.user) == (self.uid, self.user)
