"""The service of an application, for its routes."""

from typing import Annotated, Any, cast

from fastapi import Depends, Request

from api.service.service import Service


def _service(request: Request) -> Service:
    return cast(Any, request.app).state.service


ServiceOf = Annotated[Service, Depends(_service)]
