"""What routes are given: the service of the application, and who asks."""

from typing import Annotated, Any, cast

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from api.service.callers import Caller
from api.service.service import Service


def _service(request: Request) -> Service:
    return cast(Any, request.app).state.service


def _caller(request: Request) -> Caller:
    return request.state.caller  # the guard has put it there


ServiceOf = Annotated[Service, Depends(_service)]
CallerOf = Annotated[Caller, Depends(_caller)]
# Read by the guard; as a dependency it is documented.
KEY = HTTPBearer(
    scheme_name="key",
    auto_error=False,
    description="A key from `lorasmith keys create`; none is needed where there are no keys.",
)
