"""Download of an http(s) URL with limits on time and size and, optionally, only from public addresses.

Every read from the socket has the remaining time as its timeout and counts towards the size, including headers,
redirects, "100 Continue" and trailers. So the transfer needs no thread, and leaves none behind. Only the name look-up
cannot be interrupted: it runs in a thread, of which there are never more than MAX_LOOK_UPS.
"""

import contextlib
import http.client
import ipaddress
import queue
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from base64 import b64encode
from typing import Any

from ..errors import ImageError
from .limits import Limits, check_bytes, shortened

MAX_REDIRECTS = 10
MAX_LOOK_UPS = 16  # at a time; each ends when the system's resolver gives up
_MAX_OVERHEAD = 256 * 1024  # bytes of all headers, including redirects
_URL_SAFE = "%/:=&?~#+!$,;'@()*[]"
_READ_SIZE = 64 * 1024  # bytes
_REDIRECTS = (301, 302, 303, 307, 308)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

_look_ups = threading.BoundedSemaphore(MAX_LOOK_UPS)


def download(url: str, limits: Limits) -> bytes:
    """The response body of a GET, at most `limits.max_bytes`. Raises ImageError naming the URL and the remedy.

    The environment's proxies are used, unless `limits.private_addresses` is off, since the address that a proxy
    connects to cannot be checked.
    """
    name = shortened(url)
    allowance = _Allowance(limits)
    try:
        return _follow(url, name, limits, allowance)
    except TimeoutError:
        raise ImageError(
            f"{name}: not received within {limits.url_timeout:g} s; try again or raise Limits.url_timeout"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        reason = (
            str(error) if isinstance(error, (OSError, _RefusedError)) else "not a valid URL, or not an HTTP response"
        )
        raise ImageError(f"{name}: download failed ({reason}); check the address and the network") from error


class _RefusedError(ValueError):
    """The message says why a response is rejected; of what the server sent it repeats only the status."""


class _Allowance:
    """The remaining budget of one call, seconds and bytes, over all its connections."""

    def __init__(self, limits: Limits) -> None:
        self.deadline = time.monotonic() + limits.url_timeout
        self.bytes = limits.max_bytes + _MAX_OVERHEAD

    def seconds(self) -> float:
        """The time left. Raises TimeoutError if there is none."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def take(self, count: int) -> None:
        self.bytes -= count
        if self.bytes < 0:
            raise _RefusedError("the response is too long")


class _Metered(socket.socket):
    """A socket whose reads are limited by, and counted against, an allowance."""

    allowance: _Allowance

    def recv_into(self, *arguments: Any) -> int:
        self.settimeout(self.allowance.seconds())
        count = super().recv_into(*arguments)
        self.allowance.take(count)
        return count


class _SecureSocket(_Metered, ssl.SSLSocket):
    pass


def _follow(url: str, name: str, limits: Limits, allowance: _Allowance) -> bytes:
    for _ in range(MAX_REDIRECTS + 1):
        parts = urllib.parse.urlsplit(_ascii(url))
        if parts.scheme not in ("http", "https"):
            raise _RefusedError("a redirect to another scheme than http and https is not allowed")
        with contextlib.closing(_connection(parts, limits, allowance)) as connection:
            response = connection.getresponse()
            if 200 <= response.status < 300:
                return _body(response, name, limits)
            target = response.headers.get("Location")
            if response.status not in _REDIRECTS or target is None:
                raise _RefusedError(f"the server's answer is {response.status}")
            url = urllib.parse.urljoin(url, target)  # the body is not read, as it may be endless
    raise _RefusedError(f"more than {MAX_REDIRECTS} redirects")


def _ascii(url: str) -> str:
    """The URL encoded as ASCII, since people paste spaces and Chinese characters. Raises ValueError."""
    parts = urllib.parse.urlsplit(url)
    if not parts.netloc.isascii():
        account, at, place = parts.netloc.rpartition("@")
        host, colon, port = place.partition(":")
        url = parts._replace(netloc=f"{account}{at}{host.encode('idna').decode()}{colon}{port}").geturl()
    return urllib.parse.quote(url, safe=_URL_SAFE)


def _body(response: http.client.HTTPResponse, name: str, limits: Limits) -> bytes:
    if response.length is not None:
        check_bytes(response.length, name, limits.max_bytes)
    body = bytearray()
    while part := response.read1(_READ_SIZE):
        body += part
        check_bytes(len(body), name, limits.max_bytes)
    return bytes(body)


def _connection(parts: urllib.parse.SplitResult, limits: Limits, allowance: _Allowance) -> http.client.HTTPConnection:
    """A connection on which the request for `parts` has been sent."""
    host, secure = parts.hostname, parts.scheme == "https"
    if not host:
        raise _RefusedError("the URL names no host")
    port = parts.port or (443 if secure else 80)
    proxy = _proxy(parts) if limits.private_addresses else None
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    headers = {"User-Agent": "ms_ocr_handwritten", "Connection": "close"}
    authorization = _authorization(proxy) if proxy else {}
    connection = http.client.HTTPConnection(host, port)
    try:
        if proxy is None:
            connection.sock = _connect(host, port, limits, allowance)
        else:
            connection.sock = _connect(proxy.hostname or "localhost", proxy.port or 80, limits, allowance)
            if secure:
                connection.set_tunnel(host, port, authorization)
                # Called by its own `connect` once it has a socket.
                connection._tunnel()  # type: ignore[attr-defined]  # private, so not in typeshed
            else:
                target, headers = f"http://{parts.netloc.rpartition('@')[2]}{target}", headers | authorization
        if secure:
            context = ssl.create_default_context()
            context.sslsocket_class = _SecureSocket
            connection.sock.settimeout(allowance.seconds())
            secured = context.wrap_socket(connection.sock, server_hostname=host)
            assert isinstance(secured, _SecureSocket)  # the context creates this class
            secured.allowance = allowance
            connection.sock = secured
        connection.sock.settimeout(allowance.seconds())
        standard = 443 if secure else 80
        bracketed = f"[{host}]" if ":" in host else host
        headers["Host"] = bracketed if port == standard else f"{bracketed}:{port}"
        connection.request("GET", target, headers=headers)
    except BaseException:
        connection.close()
        raise
    return connection


def _proxy(parts: urllib.parse.SplitResult) -> urllib.parse.SplitResult | None:
    address = urllib.request.getproxies().get(parts.scheme)
    if not address or urllib.request.proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return urllib.parse.urlsplit(address if "://" in address else f"http://{address}")


def _authorization(proxy: urllib.parse.SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{urllib.parse.unquote(proxy.username)}:{urllib.parse.unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {b64encode(pair.encode()).decode('ascii')}"}


def _connect(host: str, port: int, limits: Limits, allowance: _Allowance) -> socket.socket:
    """A connection to the first address of `host` that accepts it. Raises OSError, or _RefusedError by the limits."""
    failure: Exception = OSError("the host has no address")
    for family, kind, protocol, _, address in _addresses(host, port, allowance):
        if not limits.private_addresses and not is_public(address[0]):
            raise _RefusedError("its host is not a public address, and Limits.private_addresses is off")
        connected = _Metered(family, kind, protocol)
        connected.allowance = allowance
        try:
            connected.settimeout(allowance.seconds())
            connected.connect(address)
            return connected
        except OSError as error:
            connected.close()
            failure = error
    raise failure


def is_public(address: str) -> bool:
    """Whether an IP address is public: not loopback, private, link-local or multicast."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo and found.teredo[1])
        if found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def _addresses(host: str, port: int, allowance: _Allowance) -> list[tuple]:
    """`socket.getaddrinfo`, waiting no longer than the allowance. Raises OSError."""
    if not _look_ups.acquire(blocking=False):
        raise OSError("too many name look-ups are waiting for the resolver")
    outcome: queue.SimpleQueue[list[tuple] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            outcome.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # passed to the caller's thread
            outcome.put(error)
        finally:
            _look_ups.release()

    thread = threading.Thread(target=look_up, name="image name look-up", daemon=True)
    thread.start()
    try:
        result = outcome.get(timeout=allowance.seconds())
    except queue.Empty:
        raise TimeoutError from None
    thread.join()
    if isinstance(result, Exception):
        raise OSError(f"the host name cannot be resolved: {result}") from result
    return result
