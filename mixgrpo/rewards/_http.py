"""Requests to a server that scores: timeouts, retries with backoff, proxies left out on this machine.

Only the standard library. What a failure means to the user is said by the reward that asked.
"""

import http.client
import json
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

from mixgrpo.errors import UserError

Result = TypeVar("Result")

PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses that the next try may not meet: a busy, starting or hiccuping server."""
BACKOFF = 1.0
"""Seconds before the second try; twice as long before each further one."""
LONGEST_WAIT = 30.0
"""Seconds between two tries at most, whatever the server's Retry-After says."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SHOWN = 300
"""Characters of a server's answer that an error quotes."""


class RequestError(Exception):
    """A request came to nothing; the message says how. `again`: whether another try may help."""

    def __init__(
        self,
        what: str,
        *,
        status: int | None = None,
        again: bool = True,
        wait: float = 0.0,
        connected: bool = True,
    ):
        super().__init__(what)
        self.status = status
        self.again = again
        self.wait = wait
        """Seconds that the server asked to wait."""
        self.connected = connected


@dataclass(frozen=True, kw_only=True)
class Server:
    """One server at `url` (no slash at its end) and how patient to be with it."""

    url: str
    timeout: float
    """Seconds for one whole try."""
    tries: int
    """How often to ask before giving up."""
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    def request(self, path: str, body: bytes | None = None, kind: str = "application/json") -> Any:
        """The JSON that one GET (or POST of `body`) of `path` returns. `RequestError` for anything else."""
        request = urllib.request.Request(
            self.url + path, data=body, headers={**self.headers, "Content-Type": kind}
        )
        try:
            with self._opener().open(request, timeout=self.timeout) as response:
                text = self._read(response)
        except urllib.error.HTTPError as error:
            raise RequestError(
                f"status {error.code}: {_message_of(error)}",
                status=error.code,
                again=error.code in PASSING,
                wait=_seconds(error.headers.get("Retry-After")),
            ) from None
        except urllib.error.URLError as error:
            raise RequestError(self._reason(error.reason), connected=False) from None
        except (OSError, http.client.HTTPException) as error:
            raise RequestError(self._reason(error)) from None
        try:
            return json.loads(text)
        except ValueError:
            raise RequestError(f"not JSON: {excerpt(text)}") from None

    def ask(self, question: Callable[[], Result], stop: threading.Event | None = None) -> Result:
        """What `question` returns, asked up to `tries` times; `stop` ends the waiting between them.

        question: raises `RequestError` when it got no answer that can be used.
        """
        stop = stop or threading.Event()
        for number in range(1, self.tries + 1):
            try:
                return question()
            except RequestError as failed:
                if not failed.again:
                    raise
                wait = max(failed.wait, BACKOFF * 2 ** (number - 1) * _jitter())
                if number == self.tries or stop.wait(min(wait, LONGEST_WAIT)):
                    tries = "1 try" if number == 1 else f"{number} tries"
                    failed.args = (f"{failed} (after {tries})",)
                    raise
        raise AssertionError("tries is at least 1")

    def _opener(self) -> urllib.request.OpenerDirector:
        """Proxies of the environment, but none between two processes of one machine."""
        if urlsplit(self.url).hostname in LOOPBACK:
            return urllib.request.build_opener(urllib.request.ProxyHandler({}))
        return urllib.request.build_opener()

    def _read(self, response: http.client.HTTPResponse) -> str:
        """The whole body; a server that sends it drop by drop is late too."""
        deadline, parts = time.monotonic() + self.timeout, []
        while part := response.read1(2**16):
            parts.append(part)
            if time.monotonic() > deadline:
                raise TimeoutError
        if response.length:  # urllib would take a body that breaks off for a whole one
            raise http.client.IncompleteRead(b"", response.length)
        return b"".join(parts).decode(errors="replace")

    def _reason(self, error: object) -> str:
        if isinstance(error, TimeoutError):
            return f"no answer within {self.timeout:g} s"
        if isinstance(error, http.client.IncompleteRead):
            return "the answer broke off"
        return str(error) or type(error).__name__


def server_url(url: str, *, name: str) -> str:
    """`url` without a slash or /v1 at its end. UserError when it is none; name: of the reward."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"reward {name}: {url!r} is no address of a server, wanted http://HOST:PORT, "
            "such as http://127.0.0.1:8080."
        )
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def excerpt(text: str) -> str:
    """The start of `text` on one line, in quotes."""
    text = " ".join(text.split())
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "...")


def _message_of(error: urllib.error.HTTPError) -> str:
    """What the server says of it, out of the JSON that servers wrap it in."""
    try:
        text = error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return str(error.reason)
    try:
        said = json.loads(text)
    except ValueError:
        return excerpt(text)
    while isinstance(said, dict):
        said = next((said[key] for key in ("error", "detail", "message") if key in said), text)
    return excerpt(said if isinstance(said, str) else text)


def _seconds(header: str | None) -> float:
    """Of a Retry-After header; a date counts as none."""
    return float(header) if header and header.isdigit() else 0.0


_random = random.Random()  # its own: the global one may belong to somebody's experiment


def _jitter() -> float:
    """Between 0.75 and 1.25, so that clients that failed together do not come back together."""
    return 0.75 + _random.random() / 2
