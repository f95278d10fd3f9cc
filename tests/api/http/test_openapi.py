"""What the service offers and documents about itself."""

from rest import engine, lasting  # noqa: F401  (fixtures)
from starlette.testclient import TestClient

from api.http.problems import PROBLEMS
from generator.engine import Engine
from library.base.models import DEFAULT_BASE, resolve_base
from library.errors import LorasmithError


def test_offers_and_health(lasting: TestClient, engine: Engine) -> None:
    assert lasting.get("/health/ready").json() == {"status": "ready"}
    offers = {o["name"]: o for o in lasting.get("/v1/generators").json()["generators"]}
    base = resolve_base()
    offered = [name for name, s in engine.strategies.items() if not s.unavailable(base)]
    assert list(offers) == offered and {"auto", "text-to-lora", "fresh"} <= {*offers}
    assert [name for name, offer in offers.items() if offer["default"]] == ["auto"]
    assert [n for n, offer in offers.items() if offer["uses_examples"]] == ["auto", "multi-task"]
    assert not any(offer["draws"] for offer in offers.values())
    assert (
        offers["text-to-lora"]["checkpoint"] == engine.generated["text-to-lora"].checkpoint.digest
    )
    assert offers["nearest"]["checkpoint"] is None
    assert offers["auto"]["needs"] == [] and offers["fresh"]["needs"] == ["examples"]
    assert offers["text-to-lora"]["needs"] == ["description"]
    assert offers["nearest"]["needs"] == ["description", "library"]
    own, shipped = offers["text-to-lora"], offers["multi-task"]
    assert own["trained_on"] == len(engine.generated["text-to-lora"].checkpoint.info.tasks)
    assert own["held_out"] is None and own["seconds"] is None
    assert shipped["trained_on"] == 3404 and shipped["held_out"]["bare"] is None
    assert shipped["held_out"]["prompted"] == 0.3212 and shipped["held_out"]["tasks"] == 34
    assert offers["fresh"]["trained_on"] is None
    bases = lasting.get("/v1/base-models").json()["base_models"]
    assert bases[0] == {"name": DEFAULT_BASE, "default": True, "base_model": DEFAULT_BASE}


def test_the_openapi_document_is_true(lasting: TestClient) -> None:
    document = lasting.get("/openapi.json").json()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    operation = document["paths"]["/v1/adapters"]["post"]
    statuses = {str(kind.status) for kind in PROBLEMS.values()} - {"404", "405", "416", "501"}
    assert set(operation["responses"]) == statuses | {"200", "201", "202", "default"}
    assert operation["requestBody"]["required"] is True
    for path in document["paths"].values():
        for method in path.values():
            for status, answer in method["responses"].items():
                if status == "default" or status >= "400":
                    assert list(answer["content"]) == ["application/problem+json"]
    codes = document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert codes == list(PROBLEMS)
    assert lasting.get("/docs").status_code == 200


def test_errors_and_the_listed_problems_agree() -> None:
    def kinds(kind: type[LorasmithError]) -> set[type[LorasmithError]]:
        return {kind}.union(*(kinds(sub) for sub in kind.__subclasses__()))

    for kind in kinds(LorasmithError):
        if kind.code in PROBLEMS:
            assert PROBLEMS[kind.code].status == kind.status, kind
