"""`/`: the page for people, and the files that it loads.

It is open to everybody, as a browser asks for it before there is a key; what it shows is asked of
the routes of `/v1`, with the visitor's key.
"""

from functools import cache

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from api.errors import NotFound
from api.http.downloads import file_response
from api.page import PAGE_FOLDER
from api.service.suites import MAX_ROWS
from generator.refine.limits import MAX_EXAMPLES, MAX_INPUTS, MAX_STEPS
from generator.request import MAX_RANK
from index.encoders.descriptions import MAX_CHARACTERS
from library.canonical import digest

PAGE = "/"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FILES = {
    f"/page/{file.name}": file for file in sorted(PAGE_FOLDER.iterdir()) if file.suffix in _TYPES
}
OF_PAGE = (PAGE, *_FILES)  # paths
# Nothing from elsewhere, no script or style within the page, and no form that is sent as such.
_POLICY = "; ".join(
    [
        "default-src 'none'",
        "connect-src 'self'",
        "img-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

router = APIRouter(include_in_schema=False)


@router.head(PAGE)
@router.get(PAGE)
def show_page() -> HTMLResponse:
    """The page."""
    return HTMLResponse(_rendered(), headers={"Content-Security-Policy": _POLICY})


@router.head("/page/{name}")
@router.get("/page/{name}")
def get_page_file(request: Request) -> Response:
    """A style sheet, script or picture of the page. Raises NotFound."""
    file = _FILES.get(request.url.path)
    if file is None:
        raise NotFound("there is no such path")
    sha256 = digest(file.read_bytes())
    return file_response(request, file, sha256, _TYPES[file.suffix], immutable=False)


@cache
def _rendered() -> str:
    environment = Environment(
        loader=FileSystemLoader(PAGE_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html.jinja").render(
        characters=MAX_CHARACTERS,
        examples_most=MAX_EXAMPLES,
        inputs=MAX_INPUTS,
        steps=MAX_STEPS,
        rank=MAX_RANK,
        rows=MAX_ROWS,
    )
