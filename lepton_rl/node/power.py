"""Power limits and clocks as leases: saved before the first change, clamped, renewed, and given back.

What a GPU had is on the disk before anything is set. It is restored when a lease is not renewed in time, when its
holder ends, and, from the file, when a holder starts again after a crash or a reboot.
"""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from lepton_rl.core.atomic import replacing
from lepton_rl.devices import DeviceError, DeviceIdentity, Devices
from lepton_rl.errors import NodeError

_log = logging.getLogger(__name__)
LEASE_S = 60.0
FILE = "power.json"


class PowerControl(Protocol):
    """Sets power limits of GPUs, and takes them back."""

    def set_limit(self, uuid: str, limit_mw: int | None, now: float) -> None:
        """Limit the draw of a GPU from now on; None takes the limit back to its default."""

    def renew(self, now: float) -> None:
        """Renew the limits that are in force."""

    def close(self) -> None:
        """Give back what was changed."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What a GPU had before it was changed; None where it was not, or has nothing of the kind."""

    uuid: str
    limit_mw: int | None = None
    clocks: bool = False


class PowerLeases:
    """Changes limits and clocks of devices, and gives them back.

    One process at a time holds the leases of a folder.

    Args:
        devices: whose limits they are; this process must be allowed to set them.
        folder: where what is to be restored is kept; what a former holder has left there is restored now.
        lease_s: seconds after which a lease that was not renewed ends.
    """

    def __init__(self, devices: Devices, folder: Path, lease_s: float = LEASE_S) -> None:
        self._devices, self._file, self._lease_s = devices, folder / FILE, lease_s
        self._identities = {identity.uuid: identity for identity in devices.identities}
        self._renewed = 0.0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._leases = self._recall()
        if self._leases:
            _log.warning("restoring %d GPUs that a former run has left changed", len(self._leases))
            self.restore()

    @property
    def leases(self) -> tuple[Lease, ...]:
        """Those in force, or still to be restored."""
        return tuple(self._leases.values())

    def set_limit(self, uuid: str, limit_mw: int | None, now: float) -> int | None:
        """Limit the draw of a GPU; None gives it back. Returns the limit set, clamped to the card's range.

        Args:
            uuid: of the GPU.
            limit_mw: milliwatts.
            now: seconds of any clock that does not jump, the same as for `renew` and `expire`.

        Raises:
            NodeError: there is no such GPU, or its driver gives it no range.
            DeviceError: the driver refuses.
        """
        identity = self._identity(uuid)
        if limit_mw is None:
            self.restore(uuid)
            return None
        lowest, highest = identity.min_power_limit_mw, identity.max_power_limit_mw
        if lowest is None or highest is None:
            raise NodeError(f"{uuid}: its driver names no range of power limits, so that none is set")
        clamped = min(max(limit_mw, lowest), highest)
        lease = self._leases.get(uuid, Lease(uuid))
        if lease.limit_mw is None:
            self._keep(Lease(uuid, self._present_limit(identity), lease.clocks))
        self._devices.set_power_limit(identity.index, clamped)
        self._renewed = now
        return clamped

    def lock_clocks(self, uuid: str, min_mhz: int, max_mhz: int, now: float) -> None:
        """Keep a GPU's SM clock between two frequencies.

        Raises:
            NodeError: there is no such GPU, or the first frequency is above the second.
            DeviceError: the driver refuses.
        """
        identity = self._identity(uuid)
        if not 0 < min_mhz <= max_mhz:
            raise NodeError(f"{uuid}: clocks go from a frequency above 0 to one no lower, not {min_mhz} to {max_mhz}")
        lease = self._leases.get(uuid, Lease(uuid))
        self._keep(Lease(uuid, lease.limit_mw, clocks=True))
        self._devices.lock_clocks(identity.index, min_mhz, max_mhz)
        self._renewed = now

    def renew(self, now: float) -> None:
        """Let all leases last for their full time from now on."""
        self._renewed = now

    def expire(self, now: float) -> bool:
        """Restore everything where the leases were not renewed in time; return whether that was so."""
        if not self._leases or now - self._renewed <= self._lease_s:
            return False
        _log.warning("power leases were not renewed for %.0f s: restoring", now - self._renewed)
        self.restore()
        return True

    def restore(self, uuid: str | None = None) -> None:
        """Give back what one GPU, or every one, had. What cannot be given back now is kept for later."""
        for lease in [lease for lease in self._leases.values() if uuid in (None, lease.uuid)]:
            try:
                self._give_back(lease)
            except DeviceError as error:
                _log.error("%s: its limits could not be restored: %s", lease.uuid, error)
            else:
                del self._leases[lease.uuid]
                self._write()

    def _give_back(self, lease: Lease) -> None:
        identity = self._identities.get(lease.uuid)
        if identity is None:
            return  # taken out of the machine
        if lease.limit_mw is not None:
            self._devices.set_power_limit(identity.index, lease.limit_mw)
        if lease.clocks:
            self._devices.reset_clocks(identity.index)

    def _identity(self, uuid: str) -> DeviceIdentity:
        if uuid not in self._identities:
            raise NodeError(f"there is no GPU {uuid!r} on this machine")
        return self._identities[uuid]

    def _present_limit(self, identity: DeviceIdentity) -> int:
        """The limit to go back to: the one that is in force, which an operator may have set."""
        found = self._devices.read(identity.index).power_limit_mw or identity.default_power_limit_mw
        if found is None:
            raise NodeError(f"{identity.uuid}: its driver does not say its power limit, so that none is set")
        return found

    def _keep(self, lease: Lease) -> None:
        self._leases[lease.uuid] = lease
        self._write()

    def _write(self) -> None:
        if not self._leases:
            self._file.unlink(missing_ok=True)
            return
        with replacing(self._file) as draft:
            draft.write_text(json.dumps([asdict(lease) for lease in self._leases.values()]), encoding="utf-8")

    def _recall(self) -> dict[str, Lease]:
        try:
            found = [Lease(**entry) for entry in json.loads(self._file.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise NodeError(
                f"{self._file}: what is to be restored cannot be read ({error}); set the GPUs' limits to their "
                "defaults by hand and remove the file"
            ) from None
        return {lease.uuid: lease for lease in found}


class OwnPower:
    """Power control by the daemon itself, where it is allowed to: `restore` when it ends."""

    def __init__(self, leases: PowerLeases) -> None:
        self._leases = leases

    def set_limit(self, uuid: str, limit_mw: int | None, now: float) -> None:
        """Limit the draw of a GPU; None gives it back."""
        self._leases.set_limit(uuid, limit_mw, now)

    def renew(self, now: float) -> None:
        """Renew all leases."""
        self._leases.renew(now)

    def close(self) -> None:
        """Give everything back."""
        self._leases.restore()


class DryPower:
    """Power control that only says what it would do."""

    def set_limit(self, uuid: str, limit_mw: int | None, now: float) -> None:
        """Say it."""
        what = "its default limit" if limit_mw is None else f"a limit of {limit_mw / 1e3:g} W"
        _log.info("dry run: GPU %s would get %s", uuid, what)

    def renew(self, now: float) -> None:
        """Nothing is to be renewed."""

    def close(self) -> None:
        """Nothing is to be restored."""
