"""A plant at the other end of HTTP (`twin.bridge.server`), with the same protocol as the twin.

What is lost, late, malformed or old is `TelemetryLost`, never a number: an empty answer read as zero has emptied
clusters at their peak.
"""

from __future__ import annotations

import json
import math
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self, TypeGuard, cast, get_args

import httpx
import numpy as np

from twin.errors import BridgeError, TelemetryLost, UsageError
from twin.types import Action, Observation, Outcome, OutcomeStatus

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_STATUSES = get_args(OutcomeStatus)
_MAX_BYTES = 16 * 2**20
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_LONGEST_S = 1e12
_IDLE_S = 2.0  # reuse a connection for less time than the server keeps it (5 s), or a request meets its end


class HttpPlant:
    """A `Plant` behind the HTTP surface of `twin.bridge.server`; a context manager.

    The clock of a simulated plant is moved by `advance`; that of a live one is waited for.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout_s: float = 2.0,
        *,
        allow_plain: bool = False,
        advance_timeout_s: float = 60.0,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        """Name the plant; nothing is sent yet.

        Args:
            url: http(s) address of the server, without path.
            token: its bearer token.
            timeout_s: the longest that one whole answer may take.
            allow_plain: speak unencrypted http to another host than this one.
            advance_timeout_s: likewise for moving a simulated clock.
            wait: lets seconds pass in front of a live plant; an event's `wait` makes a stop immediate.

        Raises:
            UsageError: an address of another kind, plain http to another host, or a token that cannot be a header.
        """
        self.url = _checked(url, allow_plain)
        if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
            raise UsageError("token must be printable ASCII without spaces around it; or None")
        self._timeout_s, self._advance_timeout_s = timeout_s, advance_timeout_s
        self._wait = wait
        self._client = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=timeout_s,
            # plain http needs no certificates: a context that trusts nobody saves reading them all
            verify=True if self.url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            trust_env=False,  # no proxy may sit between decision and cluster unseen
            follow_redirects=False,
            limits=httpx.Limits(keepalive_expiry=_IDLE_S),
        )
        self._simulated: bool | None = None
        self._known: tuple[float, float] | None = None  # plant time, and this machine's monotonic time then
        self._last: Observation | None = None
        self._time_passed = False

    @property
    def time_s(self) -> float:
        """Seconds since the plant's epoch; a live plant's clock is carried on between two answers.

        Raises TelemetryLost when the plant never answered.
        """
        if self._known is None:
            self._greet()
        if self._known is None:
            raise TelemetryLost(f"{self.url}: the plant's clock is unknown")
        at_s, since = self._known
        return at_s if self._simulated else at_s + (time.monotonic() - since)

    def observe(self) -> Observation:
        """What is known now; null has become NaN.

        Raises:
            TelemetryLost: no answer in time, one that is not an observation, or an old one: the plant's clock did
                not move although time passed, or it went back.
        """
        answer = self._ask("GET", "/observation", None, self._timeout_s)
        seen = _observation(answer, self._last, self.url)
        if self._last and (seen.time_s < self._last.time_s or (self._time_passed and seen.time_s == self._last.time_s)):
            raise TelemetryLost(
                f"{self.url}/observation is stale: time_s={seen.time_s:g} after {self._last.time_s:g}; "
                "look at the plant's own clock and source"
            )
        self._last, self._time_passed = seen, False
        self._known = (seen.time_s, time.monotonic())
        return seen

    def apply(self, actions: Sequence[Action]) -> list[Outcome]:
        """One outcome per action, in order.

        Raises:
            BridgeError: the plant refused the request; nothing was done.
            TelemetryLost: no proper answer; whether it was done is unknown until the next observation.
        """
        wishes = [asdict(a) | {"value": int(a.value), "confidence": float(a.confidence)} for a in actions]
        answer = self._ask("POST", "/actions", wishes, self._timeout_s)
        if not isinstance(answer, list) or len(answer) != len(wishes):
            raise TelemetryLost(f"{self.url}/actions: expected {len(wishes)} outcomes; what was done is unknown")
        return [_outcome(each, self.url) for each in answer]

    def advance(self, seconds: float) -> None:
        """Move a simulated clock, or wait in front of a live plant.

        Raises TelemetryLost when the plant does not say which it is, or where its clock stands now.
        """
        if self._simulated is None:
            self._greet()
        if self._simulated:
            answer = self._ask("POST", "/advance", {"seconds": float(seconds)}, self._advance_timeout_s)
            self._known = (_seconds(answer, "time_s", f"{self.url}/advance"), time.monotonic())
        else:
            self._wait(seconds)
        self._time_passed = self._time_passed or seconds > 0

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _greet(self) -> None:
        where = f"{self.url}/healthz"
        answer = self._ask("GET", "/healthz", None, self._timeout_s)
        simulated = answer.get("simulated") if isinstance(answer, dict) else None
        if not isinstance(simulated, bool):
            raise TelemetryLost(f"{where}: not the health of a plant; is this the right address?")
        self._known = (_seconds(answer, "time_s", where), time.monotonic())
        self._simulated = simulated

    def _ask(self, method: str, path: str, body: object, timeout_s: float) -> Any:  # noqa: ANN401 - JSON
        where = f"{self.url}{path}"
        try:
            status, content = self._exchange(method, path, body, timeout_s)
            answer = json.loads(content)
        except httpx.HTTPError as error:
            raise TelemetryLost(f"{where}: no answer ({type(error).__name__}: {error}); is the plant up?") from error
        except (ValueError, RecursionError) as error:
            raise TelemetryLost(f"{where}: not JSON: {error}; is this the right address?") from error
        if status == httpx.codes.OK:
            return answer
        detail = answer.get("detail") if isinstance(answer, dict) else answer
        if method == "POST" and 400 <= status < 500:
            raise BridgeError(f"{where}: refused ({status}): {detail}")
        raise TelemetryLost(f"{where}: answered {status}: {detail}")

    def _exchange(self, method: str, path: str, body: object, timeout_s: float) -> tuple[int, bytes]:
        """Status and content; the limit holds for the whole answer, not for each piece of it."""
        deadline = time.monotonic() + timeout_s
        content = bytearray()
        with self._client.stream(method, path, json=body, timeout=timeout_s) as response:
            for piece in response.iter_bytes():
                content += piece
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"the answer took longer than {timeout_s:g} s")
                if len(content) > _MAX_BYTES:
                    raise httpx.ReadError(f"the answer is longer than {_MAX_BYTES} bytes")
        return response.status_code, bytes(content)


def _checked(url: str, allow_plain: bool) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UsageError(f"url {url!r} is no address: {error}; write https://host:port") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UsageError(f"url {url!r} must be http(s); write https://host:port")
    if parsed.userinfo or parsed.path not in ("", "/") or parsed.query or parsed.fragment:
        raise UsageError("the url must hold scheme, host and port only; the secret goes into token")
    if parsed.scheme == "http" and parsed.host not in LOOPBACK and not allow_plain:
        raise UsageError(
            f"url {url!r} would send actions and token unencrypted to another host; use https, or allow_plain=True "
            "on a network that you trust"
        )
    return str(parsed).rstrip("/")


def _observation(answer: object, last: Observation | None, url: str) -> Observation:
    where = f"{url}/observation"
    time_s = _seconds(answer, "time_s", where)
    columns = answer.get("columns") if isinstance(answer, dict) else None
    values = answer.get("values") if isinstance(answer, dict) else None
    if not isinstance(columns, list) or not columns or not all(isinstance(c, str) for c in columns):
        raise TelemetryLost(f"{where}: 'columns' is not a list of names")
    if len(set(columns)) != len(columns):
        raise TelemetryLost(f"{where}: 'columns' names one metric twice")
    if not isinstance(values, list) or len(values) != len(columns):
        raise TelemetryLost(f"{where}: expected {len(columns)} 'values', one per column")
    for column, value in zip(columns, values, strict=True):
        if value is not None and not (_is_number(value) and abs(value) <= _FLOAT32_MAX):
            raise TelemetryLost(f"{where}: {column} is {value!r}; a metric is a finite number, or null when unknown")
    array = np.array([math.nan if v is None else v for v in values], dtype=np.float32)
    names = tuple(columns)
    # the same tuple as long as nothing changed: controllers look columns up once per tuple
    return Observation(time_s, last.columns if last and last.columns == names else names, array)


def _outcome(answer: object, url: str) -> Outcome:
    status = answer.get("status") if isinstance(answer, dict) else None
    value = answer.get("value") if isinstance(answer, dict) else None
    message = answer.get("message", "") if isinstance(answer, dict) else None
    if status not in _STATUSES or not isinstance(value, int) or isinstance(value, bool) or not isinstance(message, str):
        raise TelemetryLost(f"{url}/actions: {answer!r} is not an outcome; what was done is unknown")
    return Outcome(cast(OutcomeStatus, status), value, message)


def _seconds(answer: object, key: str, where: str) -> float:
    value = answer.get(key) if isinstance(answer, dict) else None
    if not _is_number(value) or not abs(value) <= _LONGEST_S:
        raise TelemetryLost(f"{where}: {key!r} is {value!r}, not a time in seconds")
    return float(value)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
