"""What a daemon does now and then beside deciding."""

import asyncio
import logging
import os

from lepton_rl.errors import JournalError, LeptonError
from lepton_rl.node.caller import Caller
from lepton_rl.node.cluster import NodeCluster
from lepton_rl.node.server import SocketServer
from lepton_rl.node.service import Service
from lepton_rl.node.watch import Watch

_log = logging.getLogger(__name__)
HOUSEKEEPING_S = 1.0
FORGETTING_S = 3600.0


async def keep_house(cluster: NodeCluster, service: Service, watch: Watch, server: SocketServer) -> None:
    """Keep the socket there, write decisions, look for what operators are told of, and forget old decisions."""
    forgotten = cluster.clock.monotonic()
    while True:
        await asyncio.sleep(HOUSEKEEPING_S)
        await server.keep()
        try:
            service.decisions.flush()
            watch.look()
            if cluster.clock.monotonic() - forgotten > FORGETTING_S:
                service.decisions.forget_old()
                forgotten = cluster.clock.monotonic()
        except JournalError as error:
            _log.error("%s", error)


async def feed_back(service: Service, period_s: float) -> None:
    """Look at results now and then and do what follows; the audit log has it as the daemon's own call."""
    caller = Caller(os.geteuid(), "feedback", operator=True)
    while True:
        await asyncio.sleep(period_s)
        try:
            found = service.promotion.look(apply=False)
            if found["verdict"] != "keep" or "weights" in found:
                await service.call(caller, "feedback", {"apply": True})
        except LeptonError as error:
            _log.error("feedback: %s", error)
