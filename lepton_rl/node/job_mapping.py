"""Files that tell dcgm-exporter which jobs are on which GPU: its `--hpc-job-mapping-dir`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from lepton_rl.core.atomic import draft_of
from lepton_rl.errors import NodeError

_log = logging.getLogger(__name__)


class JobMapping:
    """One file for each GPU, named by the driver's number of it, with a job id on each line; empty without a job.

    Args:
        folder: made if need be.

    Raises:
        NodeError: the folder cannot be made or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[int, Sequence[int]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = draft_of(folder / "probe")
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise NodeError(f"hpc_job_mapping_dir: {folder}: {error.strerror}; name a folder of your own") from None

    def write(self, jobs: Mapping[int, Sequence[int]]) -> None:
        """Write the files of the GPUs, by number, whose jobs have changed; what cannot be written is tried again."""
        for gpu, numbers in jobs.items():
            if self._written.get(gpu) == numbers:
                continue
            path = self._folder / str(gpu)
            try:
                draft = draft_of(path)
                draft.write_text("".join(f"{number}\n" for number in numbers), encoding="ascii")
                draft.replace(path)
            except OSError as error:
                _log.error("%s: the jobs of this GPU cannot be written: %s", path, error.strerror)
            else:
                self._written[gpu] = numbers

    def close(self) -> None:
        """Empty the files: nobody keeps them true from now on."""
        self.write(dict.fromkeys(self._written, ()))
