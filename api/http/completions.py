"""`/v1/completions`, `/v1/chat/completions` and `/v1/models`, as OpenAI's clients ask for them."""

import json
import logging
import math
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, cast

import anyio
from anyio import from_thread
from anyio.streams.memory import MemoryObjectSendStream
from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from api.http.body import JsonRoute
from api.http.completion_answers import (
    AnswerShape,
    ChatCompletion,
    ModelInfo,
    ModelList,
    TextCompletion,
)
from api.http.completion_requests import ChatCompletionRequest, TextCompletionRequest
from api.http.dependencies import CallerOf
from api.http.problems import BUSY, INTERNAL, JSON_BODY, PROBLEMS, documented, problem_of
from api.service.callers import Caller
from api.service.completions import Completions, Piece, Prepared
from library.errors import LorasmithError

EVENTS = "text/event-stream"
_log = logging.getLogger("lorasmith.api")


class _Explained(JsonRoute):
    """A route whose problems hold the member `error` as well, which OpenAI's clients show."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def explained(request: Request) -> Response:
            try:
                return await handler(request)
            except (LorasmithError, RequestValidationError) as error:
                response = await problem_of(request, error)
                content = json.loads(bytes(response.body))
                content["error"] = _error(content["detail"], content["code"])
                del response.headers["Content-Length"]
                return Response(json.dumps(content), response.status_code, response.headers)

        return explained


router = APIRouter(prefix="/v1", tags=["completions"], route_class=_Explained)


def _completions(request: Request) -> Completions:
    return cast(Any, request.app).state.completions


CompletionsOf = Annotated[Completions, Depends(_completions)]


def _answers(text: str) -> dict[int | str, dict[str, Any]]:
    """What both routes document."""
    content = {EVENTS: {"schema": {"type": "string"}}}
    return {
        200: {"description": f"{text}; with `stream`, chunks of it as events.", "content": content},
        **documented(
            *JSON_BODY,
            *BUSY,
            "not-found",
            "layout-mismatch",
            "unknown-name",
            "unsupported-model",
            "more-than-lora",
            "base-unreadable",
            "internal",
        ),
    }


@router.post(
    "/completions", response_model=TextCompletion, responses=_answers("The completed text")
)
async def complete_text(
    body: TextCompletionRequest, completions: CompletionsOf, caller: CallerOf
) -> Response:
    """Go on from a text, by a base model alone, under an adapter or under a gate."""
    shape = AnswerShape(False, body.model, body.shows_logprobs)
    return await _answer(body, shape, completions, caller)


@router.post(
    "/chat/completions", response_model=ChatCompletion, responses=_answers("The answered chat")
)
async def complete_chat(
    body: ChatCompletionRequest, completions: CompletionsOf, caller: CallerOf
) -> Response:
    """Answer a chat, by a base model alone, under an adapter or under a gate."""
    shape = AnswerShape(True, body.model, body.shows_logprobs)
    return await _answer(body, shape, completions, caller)


@router.get("/models", responses=documented("storage-failed"))
def list_models(completions: CompletionsOf, caller: CallerOf) -> ModelList:
    """List what completions may name: base models, gates, then the stored adapters."""
    return ModelList(
        object="list",
        data=[
            ModelInfo(
                id=model.name,
                object="model",
                created=completions.started,
                owned_by="lorasmith",
                parent=model.parent,
            )
            for model in completions.models(caller.sees)
        ],
    )


async def _answer(
    body: TextCompletionRequest | ChatCompletionRequest,
    shape: AnswerShape,
    completions: Completions,
    caller: Caller,
) -> Response:
    prepared = await completions.prepare(caller.sees, body.to_request())
    if body.stream:
        return _Stream(shape, prepared, completions)
    pieces: list[Piece] = []
    ended = await completions.run(prepared, pieces.append)
    return JSONResponse(shape.whole(pieces, ended))


class _Stream(StreamingResponse):
    """An answer in chunks; a client that leaves ends it."""

    def __init__(self, shape: AnswerShape, prepared: Prepared, completions: Completions) -> None:
        self._shape, self._prepared, self._completions = shape, prepared, completions
        self._events, events = anyio.create_memory_object_stream[str](math.inf)
        super().__init__(events, media_type=EVENTS, headers={"Cache-Control": "no-cache"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._work)
            await super().__call__(scope, receive, send)
            tasks.cancel_scope.cancel()

    async def _work(self) -> None:
        """Write all events. What goes wrong now is an event as well, as the status is sent."""
        with self._events as events:
            try:
                await self._write(events)
            except Exception as error:
                code, message = getattr(error, "code", "internal"), str(error)
                if code not in PROBLEMS or code == "internal":
                    _log.exception("a streamed completion failed")
                    code, message = "internal", INTERNAL
                events.send_nowait(_event({"error": _error(message, code)}))

    async def _write(self, events: MemoryObjectSendStream[str]) -> None:
        shape = self._shape

        def emit(piece: Piece) -> None:
            from_thread.check_cancelled()
            if piece.text or shape.shows:
                from_thread.run_sync(events.send_nowait, _event(shape.part(piece)))

        first = shape.first()
        if first is not None:
            events.send_nowait(_event(first))
        ended = await self._completions.run(self._prepared, emit)
        events.send_nowait(_event(shape.last(ended)) + "data: [DONE]\n\n")


def _error(message: str, code: str) -> dict[str, Any]:
    """What OpenAI's clients read of an error."""
    return {"message": message, "type": code, "param": None, "code": code}


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"
