"""Submitting jobs: many at once in one commit, and each acknowledged only when it is durable."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from lepton_rl.errors import JournalError, LeptonError, NodeError
from lepton_rl.node.audit import Audit
from lepton_rl.node.caller import Caller
from lepton_rl.node.cluster import NodeCluster
from lepton_rl.node.messages import Submit

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Submission:
    caller: Caller
    message: Submit
    answer: "asyncio.Future[dict[str, Any]]"


class Submissions:
    """Takes jobs in.

    Args:
        cluster: the node; told of each job that the journal has.
        audit: has an entry for each.

    Attributes:
        check_user: refuses users whose jobs do not run here.
    """

    def __init__(self, cluster: NodeCluster, audit: Audit) -> None:
        self._cluster, self._audit = cluster, audit
        self.check_user: Callable[[int], object] = lambda uid: None
        self._pending: list[_Submission] = []

    def submit(self, caller: Caller, message: Submit) -> Awaitable[dict[str, Any]]:
        """Return what will be the job's number, once the journal has it.

        Raises:
            LeptonError: (when awaited) no such job can run here, or nothing can be written.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[str, Any]] = loop.create_future()
        if not self._pending:
            loop.call_soon(self._commit)
        self._pending.append(_Submission(caller, message, answer))
        return answer

    def _commit(self) -> None:
        """Write down all that was submitted since the last commit; only then is anyone told."""
        pending, self._pending = self._pending, []
        try:
            accepted, refused = self._written(pending)
        except Exception as error:  # nothing of the batch was written, and all who wait for it must hear so
            if not isinstance(error, LeptonError):
                _log.exception("jobs could not be taken in")
            accepted, refused = [], [(submission, _ours(error)) for submission in pending]
        self._audit.refused += len(refused)
        for _, job in accepted:
            self._cluster.submitted(job)
        for submission, job in accepted:
            if not submission.answer.done():  # else the client has left
                submission.answer.set_result({"job": job})
        for submission, problem in refused:
            if not submission.answer.done():
                submission.answer.set_exception(problem)

    def _written(
        self, pending: list[_Submission]
    ) -> tuple[list[tuple[_Submission, int]], list[tuple[_Submission, LeptonError]]]:
        """Write a batch in one transaction; return those that were accepted, with their numbers, and the others."""
        accepted: list[tuple[_Submission, int]] = []
        refused: list[tuple[_Submission, LeptonError]] = []
        now = self._cluster.clock.wall()
        with self._cluster.journal.transaction():
            for submission in pending:
                try:
                    accepted.append((submission, self._accept(submission, now)))
                except JournalError:
                    raise
                except LeptonError as error:
                    refused.append((submission, error))
        return accepted, refused

    def _accept(self, submission: _Submission, now: float) -> int:
        caller, message = submission.caller, submission.message
        try:
            self.check_user(caller.uid)
            request = message.request(caller.uid, caller.user)
            if self._cluster.rules.limit_requested and request.time_limit_s is None:
                request = replace(request, time_limit_s=request.requested_s)
            self._cluster.check(request)
        except LeptonError as error:
            self._audit.enter(caller, "submit", message.name, f"refused: {error}")
            raise
        job = self._cluster.journal.submit(request, now)
        self._audit.enter(caller, "submit", f"job {job}", "done")
        return job


def _ours(error: Exception) -> LeptonError:
    return error if isinstance(error, LeptonError) else NodeError("the node could not do that; see its log")
