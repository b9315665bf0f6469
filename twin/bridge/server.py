"""Any plant behind HTTP: the seam between the bridge and a cluster that speaks another language.

    GET  /healthz      {"status", "simulated", "time_s"}
    GET  /observation  {"time_s", "columns", "values"}; what is unknown is null. As `Plant.observe`, this starts a new
                       measuring window: one reader.
    POST /actions      [{"kind", "target", "value", "reason", "confidence"}] -> [{"status", "value", "message"}]
    POST /advance      {"seconds"} -> {"time_s"}; simulated plants only

`twin.bridge.http_plant.HttpPlant` is the other end.
"""

from __future__ import annotations

import hmac
import math
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, Thread
from typing import Annotated, Literal

import uvicorn
from fastapi import Body, Depends, FastAPI, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from twin.errors import BridgeError, UsageError, WorkbenchError
from twin.loop import WANTED
from twin.types import Action, ActionKind, Observation, OutcomeStatus, Plant

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_START_S, _STOP_S = 10.0, 5.0


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class ActionMessage(_Message):
    """One wish, as `twin.types.Action`."""

    kind: ActionKind
    target: str = Field(min_length=1, max_length=200)
    value: int = Field(ge=0, le=1_000_000)
    reason: str = Field(default="", max_length=2_000)
    confidence: float = Field(default=1.0, ge=0.0, le=1.0)


class OutcomeMessage(_Message):
    """What came of one wish, as `twin.types.Outcome`."""

    status: OutcomeStatus
    value: int
    message: str = ""


class ObservationMessage(_Message):
    """What is known, as `twin.types.Observation`; null is unknown."""

    time_s: float
    columns: list[str]
    values: list[float | None]


Wishes = Annotated[list[ActionMessage], Body(max_length=1_000)]


class AdvanceMessage(_Message):
    """How many seconds are to pass."""

    seconds: float = Field(gt=0.0, le=86_400.0)


class TimeMessage(_Message):
    """The plant's clock."""

    time_s: float


class HealthMessage(TimeMessage):
    """Whether the server answers, and for what kind of plant."""

    status: Literal["ok"] = "ok"
    simulated: bool


class _Desk:
    """The plant with the one lock that all requests share, and the columns it showed last."""

    def __init__(self, plant: Plant, simulated: bool) -> None:
        self.plant = plant
        self.simulated = simulated
        self.turn = Lock()
        self.columns: tuple[str, ...] = ()

    def time_s(self) -> float:
        with self.turn:
            return float(self.plant.time_s)

    def observe(self) -> Observation:
        with self.turn:
            observation = self.plant.observe()
            self.columns = observation.columns
        return observation

    def apply(self, wishes: list[ActionMessage]) -> list[OutcomeMessage]:
        actions = [Action(w.kind, w.target, w.value, w.reason, w.confidence) for w in wishes]
        with self.turn:
            self._check_targets(actions)
            outcomes = self.plant.apply(actions)
        return [OutcomeMessage(status=o.status, value=int(o.value), message=o.message) for o in outcomes]

    def advance(self, seconds: float) -> float:
        if not self.simulated:
            raise HTTPException(409, "this plant is not simulated: its time passes by itself; wait instead")
        with self.turn:
            self.plant.advance(seconds)
            return float(self.plant.time_s)

    def _check_targets(self, actions: list[Action]) -> None:
        if not self.columns:
            raise HTTPException(409, "nothing was observed yet; GET /observation before acting")
        for action in actions:
            suffix = f".{WANTED[action.kind]}"
            known = [c.removesuffix(suffix) for c in self.columns if c.endswith(suffix)]
            if action.target not in known:
                raise HTTPException(422, f"no target {action.target!r} for kind {action.kind!r}; known: {known}")


def app(plant: Plant, token: str | None = None, *, simulated: bool = False) -> FastAPI:
    """The plant as a web application.

    Args:
        plant: used by one request at a time.
        token: the bearer token that every request but /healthz must carry; None answers anybody who asks for a
            loopback name.
        simulated: whether /advance may move the plant's clock.

    Raises:
        UsageError: a token that is empty or cannot be a header.
    """
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise UsageError("token must be printable ASCII without spaces around it; or None, on loopback only")
    desk = _Desk(plant, simulated)
    web = FastAPI(title="plant", docs_url=None, redoc_url=None, openapi_url=None)
    web.state.guarded = token is not None
    if token is None:  # a web page must not reach the plant by giving its own name our address
        web.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK, "[::1]"])
    web.add_exception_handler(WorkbenchError, _explain)
    web.add_exception_handler(RequestValidationError, _point_out)

    def allowed(authorization: Annotated[str, Header()] = "") -> None:
        if token is not None and not hmac.compare_digest(authorization.encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "missing or wrong bearer token", {"WWW-Authenticate": "Bearer"})

    guard = [Depends(allowed)]

    @web.get("/healthz")
    def healthz() -> HealthMessage:
        return HealthMessage(simulated=simulated, time_s=desk.time_s())

    @web.get("/observation", dependencies=guard)
    def observation() -> ObservationMessage:
        return _message(desk.observe())

    @web.post("/actions", dependencies=guard)
    def actions(wishes: Wishes) -> list[OutcomeMessage]:
        return desk.apply(wishes)

    @web.post("/advance", dependencies=guard)
    def advance(wish: AdvanceMessage) -> TimeMessage:
        return TimeMessage(time_s=desk.advance(wish.seconds))

    return web


def _message(seen: Observation) -> ObservationMessage:
    values = [v if math.isfinite(v) else None for v in seen.values.tolist()]
    return ObservationMessage(time_s=float(seen.time_s), columns=list(seen.columns), values=values)


def _explain(_request: Request, error: Exception) -> JSONResponse:
    """A wrong request is 422; a plant that cannot answer is 503."""
    return JSONResponse({"detail": str(error)}, 422 if isinstance(error, UsageError) else 503)


def _point_out(_request: Request, error: Exception) -> JSONResponse:
    """Each wrong field in words, without repeating what was sent."""
    wrong = error.errors() if isinstance(error, RequestValidationError) else []
    return JSONResponse({"detail": "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in wrong)}, 422)


@contextmanager
def serve(web: FastAPI, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """The address (`http://host:port`) at which `web` answers while the context is open.

    `port` 0 takes a free one. The server runs in a thread; leaving the context ends it and closes its socket.

    Raises:
        UsageError: a host beyond loopback for an app without token.
        BridgeError: the address cannot be bound, or the server did not come up.
    """
    if host not in LOOPBACK and not getattr(web.state, "guarded", False):
        raise UsageError(f"host {host!r} is open to others and the app has no token; give app(plant, token) one")
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise BridgeError(
            f"{host}:{port} cannot be bound: {error}; choose another port, or 0 for a free one"
        ) from error
    config = uvicorn.Config(
        web,
        log_config=None,  # the program decides how it logs, not its server
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=int(_STOP_S),
    )
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, kwargs={"sockets": [listener]}, name="plant-server", daemon=True)
    thread.start()
    try:
        _wait_until_up(server, thread)
        shown = f"[{host}]" if ":" in host else host
        yield f"http://{shown}:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(_STOP_S * 2)
        server.force_exit = True  # only matters when a request is stuck in the plant
        listener.close()


def _wait_until_up(server: uvicorn.Server, thread: Thread) -> None:
    deadline = time.monotonic() + _START_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise BridgeError(f"the plant's server did not come up within {_START_S:g} s; see its log above")
        time.sleep(0.005)
