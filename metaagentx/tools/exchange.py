"""One HTTP request and its answer, with bounds on time and size. What goes wrong is told without what was sent."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import http.client
import os
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


class Unanswered(Exception):
    """An attempt that brought nothing. The message is in our own words: a library's may repeat what was sent."""

    def __init__(self, reason: str, again: bool, pause: float = 0.0, body: bytes = b"") -> None:
        super().__init__(reason)
        self.again = again  # whether the next attempt may bring something
        self.pause = pause  # seconds for which the server wants to be left alone
        self.body = body  # of an answer that says what is wrong: hostile


def exchange(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None, *, seconds: float, most_kb: int
) -> bytes:
    """The body of the answer to one request. Redirects are not followed: a key goes to the host of `url` alone.

    https goes through the environment's proxy, if there is one; http, for this machine or its network, does not.

    Args:
      seconds: from the connection to the last byte, however slowly they come.
      most_kb: of the answer.

    Raises:
      Unanswered: there was no answer, none of status 2xx, or none within the bounds.
    """
    begun = time.monotonic()
    late = Unanswered(f"took longer than {seconds:g} seconds", again=True)
    connection, target = _connection(url, seconds)
    clock: threading.Timer | None = None
    try:
        connection.connect()
        # Each read has a timeout, but an answer may come a byte at a time: when time is up, the line is cut.
        clock = threading.Timer(max(begun + seconds - time.monotonic(), 0), _cut, (connection.sock,))
        clock.daemon = True
        clock.start()
        connection.request(method, target, body, dict(headers))
        response = connection.getresponse()
        data = response.read(1024 * most_kb + 1)
    except TimeoutError:
        raise late from None
    except (OSError, http.client.HTTPException):
        if time.monotonic() - begun >= seconds:
            raise late from None
        raise Unanswered("could not be reached", again=True) from None
    finally:
        if clock is not None:
            clock.cancel()
        connection.close()
    if time.monotonic() - begun >= seconds:
        raise late
    if not 200 <= response.status < 300:
        again = response.status in (408, 429) or response.status >= 500
        pause = _pause(response.getheader("Retry-After", ""))
        raise Unanswered(f"answered with status {response.status}", again, pause, data)
    if len(data) > 1024 * most_kb:
        raise Unanswered(f"sent more than {most_kb} kB", again=False)
    promised = response.getheader("Content-Length", "")
    if promised.isdecimal() and len(data) < int(promised):
        raise Unanswered("could not be reached", again=True)
    return data


def secret(variable: str, key: str) -> str:
    """The value of an environment variable, which the config names in `key`.

    Raises:
      ValueError: it is not set, or is nothing that a header can hold.
    """
    value = os.environ.get(variable, "")
    if not (value.isascii() and value.isprintable() and value.strip()):
        raise ValueError(
            f"the environment variable {variable} ({key}) must be set to the key of the API: it is not set, or not to "
            "printable characters"
        )
    return value


def check_variable(variable: str, key: str) -> None:
    """Raises ValueError if `variable` is no variable's name: the secret itself may have been written in its place."""
    if variable and not _VARIABLE.fullmatch(variable):
        raise ValueError(f"{key} must be the NAME of a variable, as SEARCH_API_KEY, not the key")


def check_url(url: str, key: str, *, plain: bool) -> None:
    """That `url` is the address of an API; http:// is for this machine, or with `plain` for any.

    Raises:
      ValueError: naming the config's `key`, and never repeating the URL, in which there may be a secret.
    """
    try:
        parts = urlsplit(url)
        well_formed = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        well_formed = False
    if not well_formed or not url.isascii() or re.search(r"\s", url):
        raise ValueError(f"{key} is not a URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and (plain or parts.hostname in LOCAL)):
        raise ValueError(f"{key} must begin with https://{' or http://' if plain else ' (http:// is for localhost)'}")
    if parts.username is not None or parts.fragment:
        raise ValueError(f"{key} may hold no user, password or fragment")


def _connection(url: str, seconds: float) -> tuple[http.client.HTTPConnection, str]:
    """A connection that is not made yet, and what to ask for on it."""
    parts = urlsplit(url)
    host, target = parts.hostname or "", (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, parts.port, timeout=seconds), target
    proxy = None if urllib.request.proxy_bypass(host) else urllib.request.getproxies().get("https")
    if not proxy:
        return http.client.HTTPSConnection(host, parts.port, timeout=seconds), target
    via = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    connection = http.client.HTTPSConnection(via.hostname or "", via.port, timeout=seconds)
    login = base64.b64encode(unquote(f"{via.username}:{via.password}").encode()).decode() if via.username else ""
    connection.set_tunnel(host, parts.port, {"Proxy-Authorization": f"Basic {login}"} if login else {})
    return connection, target


def _cut(sock: socket.socket) -> None:
    """Wake who reads from `sock`, also under TLS, whose own farewell would wait for the other side's."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _pause(header: str) -> float:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: a number of them, or a date); 0 if nothing is."""
    if header.isdecimal():
        return float(header[:9])
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 0.0
