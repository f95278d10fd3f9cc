"""The owner's side over HTTP: it holds the adapter, answers inputs and proves its answers.

`GET /v1/manifest`; `POST /v1/answers` fixes outputs Y for inputs X of one module and gives a
ticket; `POST /v1/proofs` takes a folding seed, drawn once the answers are known, and proves the
answers of its tickets, each once. Weights stay here, and so does the count of answers.
"""

import logging
import secrets
import sys
from contextlib import suppress
from threading import Lock

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from api.errors import NotFound
from api.http import problems
from api.http.body import JsonRoute
from api.http.listening import NO_TELEMETRY, announcement, listen
from api.service.settings import require_loopback
from library.errors import LorasmithError
from verification.zk.child import Rows
from verification.zk.errors import ProofFileError, ProofLimit, ProverError
from verification.zk.proof import Owner, Statement

PROBLEMS = {  # not in the adapter service's list, as it never answers with them
    ProofLimit: "The owner answers no more about this adapter",
    ProofFileError: "A file of the owner's is damaged",
    ProverError: "The prover failed",
}
_log = logging.getLogger("lorasmith.api")


class Question(BaseModel):
    """Inputs of one module, as integers times 2⁻²⁴."""

    model_config = ConfigDict(extra="forbid", strict=True)

    nonce: str = Field(min_length=8, max_length=200)
    module: str
    x: list[list[int]] = Field(min_length=1)


class Answer(BaseModel):
    """The outputs, as decimal integers times 2⁻⁷², and the ticket that their proof takes."""

    ticket: str
    y: list[list[str]]


class OwnerProofRequest(BaseModel):
    """Which answers to prove, folded by a seed of the verifier's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    fold_seed: str = Field(min_length=16, max_length=200)
    tickets: list[str] = Field(min_length=1)


class Proofs(BaseModel):
    """Proofs in hex, one a ticket, in order."""

    proofs: list[str]


class Tickets:
    """Answers that have not been proved; each is proved once."""

    def __init__(self) -> None:
        self._answers: dict[str, tuple[Question, Rows]] = {}
        self._lock = Lock()

    def issue(self, question: Question, y: Rows) -> str:
        """A new ticket for an answer."""
        ticket = secrets.token_hex(16)
        self._answers[ticket] = (question, y)
        return ticket

    def redeem(self, tickets: list[str]) -> list[tuple[Question, Rows]]:
        """All of them or none. Raises NotFound if one is unknown, used, or there twice."""
        with self._lock:
            if len(set(tickets)) < len(tickets) or not set(tickets) <= self._answers.keys():
                raise NotFound("a ticket is unknown, was used before or is there twice")
            return [self._answers.pop(ticket) for ticket in tickets]


def create_owner_app(owner: Owner) -> FastAPI:
    """The application of one owner with one adapter."""
    tickets = Tickets()
    router = APIRouter(prefix="/v1", route_class=JsonRoute)

    @router.get("/manifest")
    def manifest() -> Response:
        return Response(owner.manifest.to_bytes(), media_type="application/json")

    @router.post("/answers")
    def answers(question: Question) -> Answer:
        y = owner.answer({question.module: question.x})[question.module]
        texts = [[str(value) for value in row] for row in y]
        return Answer(ticket=tickets.issue(question, y), y=texts)

    @router.post("/proofs")
    def proofs(request: OwnerProofRequest) -> Proofs:
        digest, seed = owner.manifest.digest, request.fold_seed
        statements = [
            Statement(digest, question.module, question.nonce, seed, question.x, y)
            for question, y in tickets.redeem(request.tickets)
        ]
        return Proofs(proofs=owner.prove(statements))

    app = FastAPI(
        title="lorasmith: owner of an adapter",
        version="1",
        redoc_url=None,
        telemetry=NO_TELEMETRY,
    )
    app.include_router(router)
    problems.install(app)
    for kind in PROBLEMS:
        app.add_exception_handler(kind, _of_owner)
    return app


def serve_owner(owner: Owner, host: str, port: int) -> None:
    """Run until Ctrl-C. Raises UsageError for a host that is not loopback, ListenError."""
    require_loopback(host)
    with listen(host, port) as listener:
        server = uvicorn.Server(uvicorn.Config(create_owner_app(owner), log_level="warning"))
        print(announcement(listener), file=sys.stderr, flush=True)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _of_owner(request: Request, error: Exception) -> Response:
    assert isinstance(error, LorasmithError)
    if error.status >= 500:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    title = PROBLEMS[type(error)]
    return problems.problem_response(
        problems.ProblemType(error.code, error.status, title), str(error)
    )
