"""The HTTP API: each path names a verb of the node, which the daemon's own thread carries out."""

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from lepton_rl import __version__
from lepton_rl.errors import (
    IllegalAction,
    IllegalTransition,
    JobError,
    JournalFull,
    LeptonError,
    NotYours,
    in_words,
    missing_extra,
)
from lepton_rl.node import messages as m
from lepton_rl.node.http.charts import Charts
from lepton_rl.node.http.roles import ROLES, least_role, may
from lepton_rl.node.http.tokens import Token
from lepton_rl.node.metrics import CONTENT_TYPE, NodeMetrics
from lepton_rl.node.service import Service

try:
    from fastapi import APIRouter, Body, FastAPI, Query, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, Response
    from starlette.exceptions import HTTPException
except ImportError:
    raise missing_extra("fastapi", "http") from None

T = TypeVar("T")
STATIC = files("lepton_rl.node.http").joinpath("static")
LONGEST_WAIT_S = 60.0
_PAGE = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/app.css": ("app.css", "text/css"),
}
_STATUS: dict[type[LeptonError], int] = {IllegalAction: 409, IllegalTransition: 409, JournalFull: 503, NotYours: 403}


class Json(JSONResponse):
    """JSON as on the socket; what is no number is null."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        try:
            text = json.dumps(content, default=str, allow_nan=False)
        except ValueError:
            plain = json.loads(json.dumps(content, default=str), parse_constant=lambda _: None)
            text = json.dumps(plain)
        return text.encode()


class Bridge:
    """The way from the HTTP thread to the node, which belongs to the daemon's thread.

    Args:
        service: the node.
        loop: the daemon's.
    """

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self._service, self._loop = service, loop

    async def call(self, request: Request, verb: str, within_s: float | None = None, **arguments: Any) -> Any:
        """Return what the node answers to a verb.

        Raises:
            TimeoutError: it has not within so many seconds.
            LeptonError: it refuses.
            HTTPException: the token's role may not.
        """
        token: Token = request.state.token
        try:
            permitted(request, verb)
        except HTTPException as error:
            if m.VERBS[verb].changes:
                why = str(error.detail)
                await self.run(lambda: self._service.audit.refuse(token.caller(), verb, arguments, why))
            raise
        answer = asyncio.wait_for(self._service.call(token.caller(), verb, arguments), within_s)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer, self._loop))

    async def run(self, function: Callable[[], T]) -> T:
        """Return what a function returns in the daemon's thread."""

        async def there() -> T:
            return function()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(there(), self._loop))


def permitted(request: Request, verb: str) -> Token:
    """Return the token of a request, if its role may use a verb.

    Raises:
        HTTPException: it may not.
    """
    token: Token = request.state.token
    if not may(token.role, verb):
        needed = least_role(verb)
        raise HTTPException(403, f"the role {token.role} of this token may not {verb}; that takes {needed}")
    return token


def make_app(
    bridge: Bridge, metrics: NodeMetrics, history: Path, uuids: tuple[str, ...], metrics_open: bool
) -> FastAPI:
    """Return the application behind the gate.

    Args:
        bridge: to the node.
        metrics: of `/metrics`.
        history: file of the telemetry.
        uuids: of GPU 0, 1, ...
        metrics_open: `/metrics` needs no token.
    """
    app = FastAPI(
        title="lepton-rl node", version=__version__, docs_url=None, redoc_url=None,
        openapi_url="/api/v1/openapi.json", default_response_class=Json,
        description="Jobs on the GPUs of one machine. Every path needs `Authorization: Bearer TOKEN`.",
    )  # fmt: skip
    app.include_router(_jobs(bridge), prefix="/api/v1")
    app.include_router(_node(bridge), prefix="/api/v1")
    app.include_router(_operations(bridge, history.parent / "backups"), prefix="/api/v1")
    app.include_router(_charts(Charts(history, uuids)), prefix="/api/v1")
    app.include_router(_page(bridge, metrics, metrics_open), include_in_schema=False)
    app.add_exception_handler(LeptonError, _refused)
    app.add_exception_handler(RequestValidationError, _wrong)
    app.add_exception_handler(HTTPException, _not_there)
    app.add_exception_handler(Exception, _failed)
    return app


def _jobs(bridge: Bridge) -> APIRouter:
    router = APIRouter(tags=["jobs"])

    @router.get("/queue", summary="Jobs that have not ended; `all`, or those that ended since a time too")
    async def queue(request: Request, all: bool = False, since: float | None = None) -> Any:
        return await bridge.call(request, "queue", all=all, since=since)

    @router.post("/jobs", status_code=201, summary="Submit a job; answered once it is on the disk")
    async def submit(request: Request, message: m.Submit) -> Any:
        return await bridge.call(request, "submit", **message.model_dump(exclude_unset=True))

    @router.get("/jobs/{job}", summary="One job of your own with its runs")
    async def job(request: Request, job: int) -> Any:
        return await bridge.call(request, "job", job=job)

    @router.get("/jobs/{job}/log", summary="What a run of a job of your own wrote: a piece, or its last lines, as text")
    async def log(
        request: Request,
        job: int,
        run: int | None = None,
        stream: Literal["stdout", "stderr"] = "stdout",
        position: int = 0,
        tail: int | None = None,
    ) -> Response:
        found = await bridge.call(request, "log", job=job, run=run, stream=stream, position=position, tail=tail)
        headers = {f"x-log-{name}": str(found[name]).lower() for name in ("begin", "after", "end")}
        return Response(base64.b64decode(found["data"]), media_type="text/plain; charset=utf-8", headers=headers)

    @router.get("/jobs/{job}/wait", summary="One job of your own once it has ended, or after so many seconds as it is")
    async def wait(
        request: Request, job: int, timeout_s: Annotated[float, Query(gt=0, le=LONGEST_WAIT_S)] = 30.0
    ) -> Any:
        with contextlib.suppress(TimeoutError):
            return await bridge.call(request, "wait", within_s=timeout_s, job=job)
        return await bridge.call(request, "job", job=job)

    @router.post("/jobs/{job}/cancel", summary="End a job of your own")
    async def cancel(request: Request, job: int, kill: bool = False) -> Any:
        return await bridge.call(request, "cancel", job=job, kill=kill)

    @router.get("/jobs/{job}/explain", summary="Why a job waits and what would let it start")
    async def explain(request: Request, job: int) -> Any:
        return await bridge.call(request, "explain", job=job)

    return router


def _node(bridge: Bridge) -> APIRouter:
    """What there is to see of a node."""
    router = APIRouter(tags=["node"])

    @router.get("/me", summary="Whose token this is and what it may do")
    async def me(request: Request) -> Any:
        token = permitted(request, "ping")
        return {"name": token.name, "role": token.role, "verbs": sorted(ROLES[token.role]), "expires": token.expires}

    @router.get("/ping", summary="Whether the node lives, and what it is")
    async def ping(request: Request) -> Any:
        return await bridge.call(request, "ping")

    @router.get("/status", summary="GPUs, counts of jobs, alerts, policy and decisions")
    async def status(request: Request) -> Any:
        return await bridge.call(request, "status")

    @router.get("/decisions", summary="The newest decisions and who made them")
    async def decisions(request: Request, last: int = 50) -> Any:
        return await bridge.call(request, "decisions", last=last)

    @router.get("/usage", summary="GPU-hours, energy and cost")
    async def usage(request: Request, by: Literal["user", "project", "queue"] = "user", since: float = 0.0) -> Any:
        return await bridge.call(request, "usage", by=by, since=since)

    @router.get("/audit", summary="The newest entries of the audit log")
    async def audit(request: Request, last: int = 50) -> Any:
        return await bridge.call(request, "audit", last=last)

    return router


def _operations(bridge: Bridge, backups: Path) -> APIRouter:
    """What its operators do."""
    router = APIRouter(tags=["node"])

    @router.post("/gpus/{gpu}/drain", summary="Let a GPU take no new work")
    async def drain(request: Request, gpu: str, reason: str = Body("drained by an operator", embed=True)) -> Any:
        return await bridge.call(request, "drain", gpu=gpu, reason=reason)

    @router.post("/gpus/{gpu}/resume", summary="Let a drained or repaired GPU take work again")
    async def resume(request: Request, gpu: str) -> Any:
        return await bridge.call(request, "resume", gpu=gpu)

    @router.post("/verify", summary="Accept the GPUs anew; with `throughput` they are measured for that")
    async def verify(request: Request, message: m.Verify | None = None) -> Any:
        return await bridge.call(request, "verify", **(message or m.Verify()).model_dump())

    @router.post("/reservations", status_code=201, summary="Keep GPUs free between two times")
    async def reserve(request: Request, message: m.Reserve) -> Any:
        return await bridge.call(request, "reserve", **message.model_dump(exclude_unset=True))

    @router.delete("/reservations/{reservation}", summary="Give a reservation up")
    async def unreserve(request: Request, reservation: int) -> Any:
        return await bridge.call(request, "unreserve", reservation=reservation)

    @router.post("/backup", status_code=201, summary="Copy the journal to a file in the node's folder; its path")
    async def backup(request: Request) -> Any:
        permitted(request, "backup")
        place = backups / time.strftime("journal-%Y%m%dT%H%M%SZ.sqlite3", time.gmtime())
        backups.mkdir(mode=0o700, exist_ok=True)
        return await bridge.call(request, "backup", path=str(place))

    @router.post("/feedback", summary="What the results ask for; with `apply` it is done")
    async def feedback(request: Request, apply: bool = Body(False, embed=True)) -> Any:
        return await bridge.call(request, "feedback", apply=apply)

    @router.post("/stop", summary="End the daemon; jobs go on and the next one finds them")
    async def stop(request: Request) -> Any:
        return await bridge.call(request, "stop")

    return router


def _charts(charts: Charts) -> APIRouter:
    router = APIRouter(tags=["node"])

    # not async: it reads a file, in a thread of the pool
    @router.get(
        "/telemetry",
        summary="Readings of each GPU since a time (Unix seconds), or the last so many seconds; at most an hour",
    )
    def telemetry(request: Request, since: float = 0.0, last_s: float | None = None) -> Any:
        permitted(request, "telemetry")
        return charts.readings(since, last_s)

    return router


def _page(bridge: Bridge, metrics: NodeMetrics, metrics_open: bool) -> APIRouter:
    router = APIRouter()

    @router.get("/metrics")
    async def prometheus(request: Request) -> Response:
        if not metrics_open:
            permitted(request, "metrics")
        return Response(await bridge.run(metrics.render), media_type=CONTENT_TYPE)

    def serve(name: str, kind: str) -> Callable[[], Response]:
        content = STATIC.joinpath(name).read_bytes()
        return lambda: Response(content, media_type=kind)

    for path, (name, kind) in _PAGE.items():
        router.add_api_route(path, serve(name, kind), methods=["GET"])
    return router


async def _refused(request: Request, error: Exception) -> Json:
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 400)
    if isinstance(error, JobError) and "job" in request.path_params:
        status = 404
    return Json({"error": str(error)}, status)


async def _wrong(request: Request, error: Exception) -> Json:
    assert isinstance(error, RequestValidationError)
    problem = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"][1:]) or "the body"
    if problem["type"] == "json_invalid":
        return Json({"error": "the body must be JSON"}, 422)
    if problem["loc"] == ("body",):
        return Json({"error": "the body must be a JSON object, under `Content-Type: application/json`"}, 422)
    if problem["type"] == "extra_forbidden":
        return Json({"error": f"there is no argument {place!r}"}, 422)
    return Json({"error": f"{place}: {in_words(problem)}"}, 422)


async def _not_there(request: Request, error: Exception) -> Json:
    assert isinstance(error, HTTPException)
    sentences = {
        404: "there is no such path; /api/v1/openapi.json lists those that there are",
        405: f"{request.method} is not what this path takes; see /api/v1/openapi.json",
    }
    sentence = sentences.get(error.status_code, str(error.detail))
    return Json({"error": sentence}, error.status_code, dict(error.headers or {}))


async def _failed(request: Request, error: Exception) -> Json:
    return Json({"error": "the node could not do that: an error of ours, see its log"}, 500)
