"""The owner's side over HTTP: it holds the adapter, answers inputs and proves its answers.

`GET /v1/manifest`; `POST /v1/answers` fixes outputs Y for inputs X of one module and gives a
ticket; `POST /v1/proofs` takes a folding seed, drawn once the answers are known, and proves the
answers of its tickets, each once. Weights never leave; the limit of answers is kept on this side.
"""

import secrets
from contextlib import suppress
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from api import problems
from api.body import JsonRoute
from api.errors import NotFound
from api.listening import NO_TELEMETRY, announce, listen
from api.settings import require_loopback
from verification.zk_errors import ProofLimit
from verification.zk_proof import Owner, Statement


class Question(BaseModel):
    """Inputs of one module, as integers times 2⁻²⁴."""

    model_config = ConfigDict(extra="forbid", strict=True)

    nonce: str = Field(min_length=8, max_length=200)
    module: str
    x: list[list[int]] = Field(min_length=1)


class Answer(BaseModel):
    """The outputs, as decimal integers times 2⁻⁷², and what to ask their proof with."""

    ticket: str
    y: list[list[str]]


class ProofRequest(BaseModel):
    """Which answers to prove, folded by a seed of the verifier's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fold_seed: str = Field(min_length=16, max_length=200)
    tickets: list[str] = Field(min_length=1)


class Proofs(BaseModel):
    """Proofs in hex, one a ticket, in order."""

    proofs: list[str]


def create_owner_app(owner: Owner) -> FastAPI:
    """The application of one owner with one adapter."""
    given: dict[str, tuple[Question, list[list[int]]]] = {}
    router = APIRouter(prefix="/v1", route_class=JsonRoute)

    @router.get("/manifest")
    def manifest() -> Response:
        return Response(owner.manifest.to_bytes(), media_type="application/json")

    @router.post("/answers")
    def answers(question: Question) -> Answer:
        y = owner.answer({question.module: question.x})[question.module]
        ticket = secrets.token_hex(16)
        given[ticket] = (question, y)
        return Answer(ticket=ticket, y=[[str(value) for value in row] for row in y])

    @router.post("/proofs")
    def proofs(request: ProofRequest) -> Proofs:
        taken = [given.pop(ticket, None) for ticket in request.tickets]
        statements = [_statement(owner, entry, request.fold_seed) for entry in taken]
        return Proofs(proofs=owner.prove(statements))

    app = FastAPI(
        title="lorasmith: owner of an adapter",
        version="1",
        redoc_url=None,
        telemetry=NO_TELEMETRY,
    )
    app.include_router(router)
    problems.install(app)
    app.add_exception_handler(ProofLimit, _of_limit)
    return app


def serve_owner(owner: Owner, host: str, port: int) -> None:
    """Run until Ctrl-C. Raises UsageError for a host that is not loopback, ListenError."""
    require_loopback(host)
    with listen(host, port) as listener:
        server = uvicorn.Server(uvicorn.Config(create_owner_app(owner), log_level="warning"))
        announce(listener)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _of_limit(request: Request, error: Exception) -> Response:
    """A problem that the adapter service does not know, so it is not in its listed set."""
    content = {
        "type": f"urn:lorasmith:problem:{ProofLimit.code}",
        "title": "The owner answers no more about this adapter",
        "status": ProofLimit.status,
        "detail": str(error),
        "code": ProofLimit.code,
    }
    return JSONResponse(content, ProofLimit.status, media_type=problems.MEDIA_TYPE)


def _statement(owner: Owner, entry: Any, fold_seed: str) -> Statement:
    if entry is None:
        raise NotFound("a ticket is unknown or was used before")
    question, y = entry
    return Statement(
        owner.manifest.digest, question.module, question.nonce, fold_seed, question.x, y
    )
