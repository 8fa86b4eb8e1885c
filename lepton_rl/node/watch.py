"""What is looked at beside the deciding: alerts, and the files that tell others which jobs are on which GPU."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lepton_rl.node.alerts import AlertRules, Alerts
from lepton_rl.node.cluster import NodeCluster
from lepton_rl.node.guard import Guard
from lepton_rl.node.job_mapping import JobMapping
from lepton_rl.node.jobs import JobState


class Watch:
    """Looks at a node once in a while, in the daemon's thread.

    Args:
        cluster: the node.
        guard: who decides.
        rules: when there is an alert.
        job_mapping_dir: gets a file for each GPU with the jobs on it; None writes none.
    """

    def __init__(
        self,
        cluster: NodeCluster,
        guard: Guard,
        rules: AlertRules | None = None,
        job_mapping_dir: Path | None = None,
    ) -> None:
        self._cluster, self._guard = cluster, guard
        self.alerts = Alerts(rules)
        self._mapping = None if job_mapping_dir is None else JobMapping(job_mapping_dir)
        self._ended, self._decided = self._ends(), self._decisions()
        self._changed = True
        self._holders: Mapping[str, tuple[int, ...]] = {}

    def changed(self) -> None:
        """Jobs have started, ended or moved."""
        self._changed = True

    def look(self) -> None:
        """Work out the alerts and write what has changed."""
        if self._changed:
            self._changed = False
            before, self._ended = self._ended, self._ends()
            failed, done = (now - then for now, then in zip(self._ended, before, strict=True))
            self.alerts.ended([True] * failed + [False] * done)
        before, self._decided = self._decided, self._decisions()
        doubtful, plain = (now - then for now, then in zip(self._decided, before, strict=True))
        self.alerts.decided([True] * doubtful + [False] * plain)
        self._holders = self._cluster.jobs.holders()
        clock, devices = self._cluster.clock, self._cluster.telemetry.latest().devices
        self.alerts.update(devices, self._holders.keys(), clock.monotonic(), clock.wall())
        if self._mapping is not None:
            self._mapping.write(
                {device.identity.index: self._holders.get(device.identity.uuid, ()) for device in devices}
            )

    def active(self) -> list[dict[str, Any]]:
        """Return what is wrong now, as plain data."""
        return [asdict(alert) for alert in self.alerts.active]

    def close(self) -> None:
        """Leave no files behind that are no longer true."""
        if self._mapping is not None:
            self._mapping.close()

    def _ends(self) -> tuple[int, int]:
        counts = self._cluster.journal.counts()
        return counts[JobState.FAILED] + counts[JobState.LOST], counts[JobState.DONE]

    def _decisions(self) -> tuple[int, int]:
        """How many decisions were made in doubt of the policy, and how many were not."""
        doubted = self._guard.doubted
        return doubted, self._guard.counts["decisions"] - doubted
