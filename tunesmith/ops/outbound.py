"""HTTP to addresses that users name; no such request can be turned against our own network.

A host is resolved here, every address it has is checked, and the connection goes to the very
address that was checked: a name that answers differently a moment later gains nothing. Redirects
are not followed, answers are read up to a limit, and the whole exchange ends within `LIMIT_S`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpcore

from tunesmith.errors import TunesmithError

LIMIT_S = 10.0
MAX_ANSWER_BYTES = 1 << 20
MAX_URL_CHARS = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
# IPv4 written as IPv6 by a translator in the network (RFC 6052).
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class OutboundError(TunesmithError):
    """No answer was had; trying again later may help."""


class OutboundRefused(OutboundError):
    """The address is one that this server does not send to."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    """Its first MAX_ANSWER_BYTES."""


class Allowed:
    """The exceptions an operator makes: networks ("10.1.0.0/16"), addresses, and host names.

    Raises ValueError for an entry that is none of them.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self.networks: list[Network] = []
        self.names: set[str] = set()
        for entry in entries:
            try:
                self.networks.append(ipaddress.ip_network(entry))
            except ValueError:
                if not entry or "/" in entry or ":" in entry:
                    raise
                self.names.add(entry.lower())

    def covers(self, host: str, address: Address) -> bool:
        return host.lower() in self.names or any(address in net for net in self.networks)

    def check(self, parts: SplitResult, addresses: list[Address]) -> None:
        """Raises OutboundRefused unless all of them may be sent to."""
        host = parts.hostname or ""
        for address in addresses:
            if self.covers(host, address):
                continue
            if not is_public(address):
                raise OutboundRefused(
                    f"{host} is at {address}, which is no public address; this server does not "
                    "send there. Its operator can allow it (TUNESMITH_OUTBOUND_ALLOW)."
                )
            if parts.scheme != "https":
                raise OutboundRefused(
                    f"{host} can only be sent to over https. The operator of this server can allow "
                    "plain http to a host (TUNESMITH_OUTBOUND_ALLOW)."
                )


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public Internet, also by the IPv4 address it may carry."""
    carried = _carried(address)
    if carried is not None:
        return is_public(carried)
    return address.is_global and not address.is_multicast


def _carried(address: Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def check_url(url: str, allowed: Allowed) -> SplitResult:
    """What can be said of a URL without asking a name server. Raises OutboundRefused."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise OutboundRefused(f"This is no URL: {error}.") from None
    host = parts.hostname
    if len(url) > MAX_URL_CHARS or not url.isascii() or not url.isprintable() or " " in url:
        raise OutboundRefused(
            f"A URL must be at most {MAX_URL_CHARS} printable ASCII characters without blanks."
        )
    if parts.scheme not in DEFAULT_PORTS or not host or port == 0:
        raise OutboundRefused("A URL must begin with https:// and name a host.")
    if parts.username is not None or parts.password is not None:
        raise OutboundRefused("A URL must not hold a user name or password.")
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        if parts.scheme == "http" and not allowed.networks and host not in allowed.names:
            raise OutboundRefused("The URL must begin with https://.") from None
    else:
        allowed.check(parts, [literal])
    return parts


async def send(
    method: str,
    url: str,
    *,
    allowed: Allowed,
    headers: Mapping[str, str],
    body: bytes = b"",
    limit_s: float = LIMIT_S,
) -> Answer:
    """One request and its answer, whatever its status. Raises OutboundError, OutboundRefused."""
    parts = check_url(url, allowed)
    try:
        async with asyncio.timeout(limit_s):
            address = await _resolve(parts, allowed)
            return await _exchange(method, url, headers, body, address)
    except TimeoutError:
        raise OutboundError(f"No complete answer within {limit_s:g} seconds.") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
        text = str(error) or type(error).__name__
        raise OutboundError(f"The exchange with {parts.hostname} failed: {text}") from error


async def _resolve(parts: SplitResult, allowed: Allowed) -> Address:
    """The address to connect to, checked. One bad address among several refuses them all."""
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise OutboundError(f"{host} cannot be resolved: {error}") from None
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not addresses:
        raise OutboundError(f"{host} has no address.")
    allowed.check(parts, addresses)
    return addresses[0]


async def _exchange(
    method: str, url: str, headers: Mapping[str, str], body: bytes, address: Address
) -> Answer:
    pool = httpcore.AsyncConnectionPool(
        ssl_context=_tls(), network_backend=_Pinned(address), http1=True, http2=False
    )
    fields = list(headers.items())
    async with pool, pool.stream(method, url, headers=fields, content=body) as response:
        read = bytearray()
        async for chunk in response.aiter_stream():
            read += chunk
            if len(read) > MAX_ANSWER_BYTES:
                break
        return Answer(response.status, bytes(read[:MAX_ANSWER_BYTES]))


@cache
def _tls() -> ssl.SSLContext:
    """Certificates are checked against the name in the URL, by the system's authorities."""
    return ssl.create_default_context()


class _Pinned(httpcore.AsyncNetworkBackend):
    """Connects to one address, whatever host is asked for."""

    def __init__(self, address: Address) -> None:
        self._address = str(address)
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, *args: Any, **options: Any
    ) -> httpcore.AsyncNetworkStream:
        return await self._network.connect_tcp(self._address, port, *args, **options)
