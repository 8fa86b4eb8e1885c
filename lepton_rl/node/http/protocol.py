"""HTTP/1.1 that does not wait for ever: a client that sends its request's head slowly, or not at all, is hung up on."""

import asyncio
from typing import Any

from lepton_rl.errors import missing_extra

try:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError:
    raise missing_extra("uvicorn", "http") from None


def patient_protocol(header_s: float) -> type[H11Protocol]:
    """Return uvicorn's protocol with a limit on the seconds that the head of a request may take.

    They count from the opening of a connection, and later from the first byte of each further request.
    """

    class PatientProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head_timer = self.loop.call_later(header_s, self._hang_up)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            waits = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
            if waits and self._head_timer is None:
                self._head_timer = self.loop.call_later(header_s, self._hang_up)
            elif self.conn.their_state is not h11.IDLE:
                self._forget_timer()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_timer()
            super().connection_lost(exc)

        def _hang_up(self) -> None:
            self._head_timer = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.close()

        def _forget_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return PatientProtocol
