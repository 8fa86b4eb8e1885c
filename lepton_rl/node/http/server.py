"""The HTTP server of a node, in a thread of its own: whatever its clients do, the daemon goes on deciding."""

import asyncio
import errno
import logging
import os
import socket
import ssl
import threading
import time
from pathlib import Path

from lepton_rl.errors import NodeError, missing_extra
from lepton_rl.node.http.api import Bridge, make_app
from lepton_rl.node.http.gate import Gate
from lepton_rl.node.http.protocol import patient_protocol
from lepton_rl.node.http.rules import TOKENS, HttpRules, check_rules
from lepton_rl.node.http.tokens import TokenBook
from lepton_rl.node.metrics import NodeMetrics
from lepton_rl.node.paths import HISTORY
from lepton_rl.node.service import Service

try:
    import uvicorn
    from uvicorn.config import create_ssl_context
except ImportError:
    raise missing_extra("uvicorn", "http") from None

_log = logging.getLogger(__name__)
_MOST_CONNECTIONS = 200
_KEEP_ALIVE_S = 15
_START_S = 30.0
_END_S = 2


class HttpServer:
    """Listens for HTTP, or HTTPS, from its construction until `close`.

    Args:
        rules: where, and what is let through.
        service: the node.
        metrics: of the node.
        state_dir: holds tokens and telemetry.
        loop: the daemon's, in which the node does its work.

    Raises:
        NodeError: it may not or cannot listen there.
    """

    def __init__(
        self,
        rules: HttpRules,
        service: Service,
        metrics: NodeMetrics,
        state_dir: Path,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        tokens = TokenBook(state_dir / TOKENS)
        check_rules(rules, len(tokens.tokens()))
        uuids = service.cluster.hardware.uuids
        app = make_app(Bridge(service, loop), metrics, state_dir / HISTORY, uuids, rules.metrics_open)
        config = uvicorn.Config(
            Gate(app, tokens, rules), loop="asyncio", http=patient_protocol(rules.header_s), ws="none",
            lifespan="off", log_config=None,
            access_log=False, server_header=False, proxy_headers=False, limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S, timeout_graceful_shutdown=_END_S,
            ssl_certfile=rules.certificate, ssl_keyfile=rules.key,
        )  # fmt: skip
        try:
            config.load()
        except (ssl.SSLError, OSError) as error:
            raise NodeError(
                f"http: certificate {rules.certificate} and key {rules.key} cannot be used: {error}"
            ) from None
        self._rules, self._config, self._renewed = rules, config, config.ssl
        if config.ssl is not None:
            config.ssl.sni_callback = self._choose_context
        self._socket = _bound(rules.host, rules.port)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="http", daemon=True)
        host, self.port = self._socket.getsockname()[:2]
        scheme = "http" if rules.certificate is None else "https"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self._server.started:
            self._socket.close()
            raise NodeError(f"{self.url}: the HTTP server does not start; see the log")
        if not tokens.tokens():
            _log.warning("nobody has a token for HTTP yet; `lepton-rl node token add` makes one")

    def renew_certificate(self) -> None:
        """Read certificate and key anew for connections to come; where they cannot be used, go on with the old ones."""
        rules, config = self._rules, self._config
        if rules.certificate is None:
            return
        try:
            self._renewed = create_ssl_context(
                rules.certificate, rules.key, None, config.ssl_version, config.ssl_cert_reqs, None, config.ssl_ciphers
            )
        except (ssl.SSLError, OSError) as error:
            _log.error(
                "certificate %s and key %s cannot be used, the old ones stay: %s", rules.certificate, rules.key, error
            )
            return
        _log.info("certificate %s was read anew", rules.certificate)

    def _choose_context(self, connection: ssl.SSLObject, name: str, context: ssl.SSLContext) -> None:
        if self._renewed is not None:
            connection.context = self._renewed

    async def close(self) -> None:
        """Stop listening; the daemon's loop goes on, so that requests under way are answered."""
        self._server.should_exit = True
        await asyncio.to_thread(self._thread.join)
        self._socket.close()


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound, so that who starts the daemon is told where it cannot be."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        why = "something listens there already" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0)
        raise NodeError(f"http.listen: {host}:{port}: {why}; name another port") from None
    return bound
