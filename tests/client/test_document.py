"""The Python client and the OpenAPI document agree: on routes, on bodies, on answers."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from stored import nothing_made

from api.http.app import create_app
from api.service.service import Service
from api.service.settings import Settings
from api.service.uploads import FILES
from lorasmith_client import adapters, answers, client, listings, methods, requests
from lorasmith_client.flow import Request
from lorasmith_client.parsing import json_name

# Arguments of every method that makes a request of its own, in the order of the table.
CALLS: dict[str, tuple[Any, ...]] = {
    "submit": ("a task",), "batch": ([{"description": "a task"}],), "submit_refine": ("ID",),
    "submit_compose": (["ID"],), "import_adapter": (Path(__file__),), "get": ("ID",), "list": (),
    "delete": ("ID",), "read_file": ("ID", "README.md"), "submit_verify": ("ID",),
    "job": ("ID",), "cancel": ("ID",), "names": (), "name": ("NAME",),
    "publish": ("NAME", "ID"), "submit_promote": ("NAME",), "rollback": ("NAME",),
    "delete_name": ("NAME",), "search": ("a task",), "library": (),
    "library_adapter": ("ID",), "library_map": ("a task",), "generators": (), "base_models": (),
    "live": (), "ready": (), "metrics": (), "chat": ("ID", []), "complete": ("ID", "text"),
    "models": (),
}  # fmt: skip
# Methods that make requests of the others.
FROM_OTHERS = {
    "create", "finished", "refine", "compose", "download", "verify", "wait", "promote",
}  # fmt: skip
BODIES = {
    "AdapterRequest": requests.AdapterFields,
    "RefineRequest": requests.RefineFields,
    "ComposeRequest": requests.ComposeFields,
    "VerifyRequest": requests.VerifyFields,
    "ProofBody": requests.ProofFields,
    "SuiteRow": requests.SuiteRow,
    "ExampleBody": requests.Example,
    "MessageBody": requests.Message,
}
POSITIONAL = {"AdapterRequest": {"description"}, "ComposeRequest": {"adapters"}}
ANSWERS = {
    "AdapterAnswer": answers.Adapter,
    "AdapterList": answers.AdapterPage,
    "AgreementBody": answers.Agreement,
    "BaseModelInfo": listings.BaseModel,
    "ChosenBody": answers.Chosen,
    "DescribedAdapter": listings.DescribedAdapter,
    "ExpectedBody": answers.Expected,
    "FindingAnswer": answers.Finding,
    "GateScores": answers.Scores,
    "GeneratorInfo": listings.Generator,
    "HeldOutBody": answers.HeldOut,
    "HeldOutTasks": listings.HeldOutTasks,
    "JobAnswer": answers.Job,
    "LibraryAdapter": listings.LibraryAdapter,
    "LibraryPage": listings.LibraryPage,
    "MapAnswer": listings.LibraryMap,
    "MoveAnswer": answers.Move,
    "NameAnswer": answers.Name,
    "NameSummary": answers.NameSummary,
    "NeighbourBody": answers.Neighbour,
    "PlaceBody": listings.Place,
    "PlacedAdapter": listings.PlacedAdapter,
    "PromotionAnswer": answers.Promotion,
    "PublishedVersion": answers.PublishedVersion,
    "RefinedBody": answers.Refined,
    "SearchResult": listings.SearchResult,
    "StoredFile": answers.File,
    "SuiteAnswer": answers.Suite,
    "TaughtBody": answers.Taught,
    "UsageBody": answers.Usage,
    "Verification": answers.Verification,
    "VersionAnswer": answers.Version,
}


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    settings = Settings(data=tmp_path_factory.mktemp("data"))
    return create_app(Service(settings, nothing_made())).openapi()


def first_request(name: str, *arguments: Any) -> Request:
    """What a method asks first."""
    request = next(getattr(client.Client, name).flow(*arguments))
    assert isinstance(request, Request)
    return request


def template(path: str, paths: list[str]) -> str:
    """The documented path that a path is one of; one without a variable goes first."""
    fitting = [p for p in paths if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", p), path)]
    return min(fitting, key=lambda p: p.count("{"))


def test_every_documented_route_has_a_method(document: dict[str, Any], tmp_path: Path) -> None:
    paths = list(document["paths"])
    calls = {**CALLS, "download_archive": ("ID", tmp_path / "a.tar")}
    assert {*calls, *FROM_OTHERS} == {
        name for name, value in vars(methods.Methods).items() if isinstance(value, methods.Method)
    }
    asked = [first_request(name, *arguments) for name, arguments in calls.items()]
    asked.append(client._events("ID"))  # the one stream
    routes = [f"{request.method} {template(request.path, paths)}" for request in asked]
    documented = [f"{m.upper()} {path}" for path, ms in document["paths"].items() for m in ms]
    assert sorted(routes) == sorted(documented)


@pytest.mark.parametrize("name", BODIES)
def test_bodies_have_the_documented_fields(document: dict[str, Any], name: str) -> None:
    schema = document["components"]["schemas"][name]
    assert {*get_type_hints(BODIES[name])} == {*schema["properties"]} - POSITIONAL.get(name, set())


def test_other_bodies_and_queries_have_the_documented_fields(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, method in (("PublishRequest", "publish"), ("PromoteRequest", "submit_promote")):
        assert {*first_request(method, *CALLS[method]).json} == {*schemas[name]["properties"]}
    fields = {*get_type_hints(requests.CompletionFields)}
    for name, own in (
        ("ChatCompletionRequest", {"model", "messages", "top_logprobs"}),
        ("TextCompletionRequest", {"model", "prompt"}),
    ):
        left_to_openai = {"n", "stream", "logprobs"}
        assert fields == {*schemas[name]["properties"]} - own - left_to_openai
    search = document["paths"]["/v1/search"]["get"]["parameters"]
    assert {"q", *get_type_hints(requests.SearchFields)} == {one["name"] for one in search}
    single = {*get_type_hints(requests.BatchItem)}
    trained = {"examples", "inputs", "write_inputs"}
    assert single == {*schemas["AdapterRequest"]["properties"]} - trained


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_have_the_documented_fields(document: dict[str, Any], name: str) -> None:
    schema = document["components"]["schemas"][name]
    assert {json_name(f) for f in dataclasses.fields(ANSWERS[name])} == {*schema["properties"]}


def test_every_dataclass_is_held_to_the_document() -> None:
    own = {
        value for module in (answers, listings) for value in vars(module).values()
        if dataclasses.is_dataclass(value)
    }  # fmt: skip
    # These are of OpenAI's shapes, of which a part is kept.
    assert own == {*ANSWERS.values(), listings.Completion, listings.Model}


def test_an_import_has_the_files_that_the_service_takes() -> None:
    assert {*adapters.IMPORTED} == {*FILES}
