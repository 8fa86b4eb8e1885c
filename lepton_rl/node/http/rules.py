"""Where a node listens for HTTP and what it lets through."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from lepton_rl.errors import NodeError
from lepton_rl.node.messages import MOST_BYTES

TOKENS = "http_tokens.json"


@dataclass(frozen=True, slots=True)
class HttpRules:
    """Where a node listens for HTTP and what it lets through.

    Attributes:
        host: address to listen on.
        port: 0 lets the system choose.
        certificate: file of the TLS certificate with its chain, PEM.
        key: file of its private key, PEM, without a passphrase.
        hosts: names and addresses by which clients may call, beside `host`; a request that names another is refused.
        metrics_open: `/metrics` can be read without a token.
        dcgm_names: `/metrics` also has what dcgm-exporter exports.
        requests_per_second: of one token, and ten times as many from one address, lasting; bursts of five seconds.
        body_bytes: most bytes of one request's body.
        body_s: seconds that a body may take to arrive.
        header_s: seconds that the head of a request may take to arrive.
    """

    host: str = "127.0.0.1"
    port: int = 8265
    certificate: Path | None = None
    key: Path | None = None
    hosts: tuple[str, ...] = ()
    metrics_open: bool = False
    dcgm_names: bool = False
    requests_per_second: float = 20.0
    body_bytes: int = MOST_BYTES
    body_s: float = 30.0
    header_s: float = 10.0

    @property
    def listen(self) -> str:
        """Address and port, as `parse_listen` reads them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can call."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def names(self) -> frozenset[str]:
        """What the Host header of a request may say, without its port."""
        own = {"127.0.0.1", "localhost", "[::1]"} if self.loopback else set()
        address = f"[{self.host}]" if ":" in self.host else self.host
        return frozenset({*own, address, *(name.lower() for name in self.hosts)})


def parse_listen(text: str) -> tuple[str, int]:
    """Return address and port of 127.0.0.1:8265, [::1]:8265 or localhost:8265.

    Raises:
        NodeError: it is none of these.
    """
    host, colon, port = text.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.removeprefix("[").removesuffix("]")
    try:
        ipaddress.ip_address(host)
        if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
            raise ValueError
    except ValueError:
        raise NodeError(f"http.listen: {text!r} is no address and port; write it as 127.0.0.1:8265") from None
    return host, int(port)


def check_rules(rules: HttpRules, tokens: int) -> None:
    """Refuse to listen where others could listen in, or where nobody could call.

    Args:
        rules: to check.
        tokens: number of tokens that there are.

    Raises:
        NodeError: says what is missing.
    """
    if (rules.certificate is None) != (rules.key is None):
        raise NodeError("http: TLS needs both http.certificate and http.key; only one of them is given")
    for path in (rules.certificate, rules.key):
        if path is not None and not path.is_file():
            raise NodeError(f"http: {path}: there is no such file for TLS")
    if rules.loopback:
        return
    if rules.certificate is None:
        raise NodeError(
            f"http.listen: {rules.host} can be reached from other machines: give http.certificate and http.key for "
            "TLS, or listen on 127.0.0.1"
        )
    if tokens == 0:
        raise NodeError(
            f"http.listen: {rules.host} can be reached from other machines and there is no token yet: make one with "
            "`lepton-rl node token add NAME --role submit`"
        )
