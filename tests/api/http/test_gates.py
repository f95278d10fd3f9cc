"""Gates as models of completions: held to decoding under the gate, and refused in one sentence."""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest
import tiny
from rest import LOCALHOST, serving
from starlette.testclient import TestClient
from stored import nothing_made

from api.http.app import create_app
from api.service import gates
from api.service.gates import Gates
from api.service.service import Service
from api.service.settings import Settings
from generator.engine import Engine
from generator.resources import FOLLOW_SECONDS, Resources
from index.gate.experts import experts_of
from index.gate.forward import GatedAdapter
from index.gate.learnt import Gate, GateConfig
from index.gate.prototypes import Prototypes
from index.gate.systems import SYSTEMS
from index.search import retriever
from library.adapter import Adapter
from library.base.completion import text_of
from library.base.decode import decode
from library.base.models import BaseModel
from library.base.prompts import chat_ids
from library.base.turns import turn
from library.checkpoint import CheckpointInfo, save_checkpoint
from library.errors import CheckpointError, LorasmithError, MissingPath, UsageError
from library.layout import Layout, layout_of
from library.store.catalogue import read_adapter, records
from library.store.open import open_library

UNTRAINED = ("arrow", "spectr", "lag")
TRAINED = ("mixlora", "milora", "x-lora", "smora", "mosld")
PROMPTS = ("Add the two numbers.\n\n3 and 4", "Why?", "love " * 40)


def trained(name: str, ids: Sequence[str], layout: Layout) -> Gate:
    experts = experts_of(SYSTEMS[name], tiny.adapter(layout, len(ids)))
    gate = Gate(GateConfig(name, ids, ids, len(experts), 32), layout)
    tiny.randomise(gate, std=0.5)
    return gate.requires_grad_(False)


def resources_of(small_library: Path, encoder: Any) -> Resources:
    return Resources(open_library(str(small_library / "lib")), encoders=[encoder])


@pytest.fixture(scope="module")
def ids(small_library: Path) -> list[str]:
    return [record["id"] for record in records(open_library(str(small_library / "lib")))]


@pytest.fixture(scope="module")
def adapters(small_library: Path, ids: list[str]) -> Iterator[Adapter]:
    """Random ones in place of the library's, which hardly differ, in the order of their ids."""
    made = tiny.adapter(open_library(str(small_library / "lib")).plan().layout, len(ids))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retriever, "read_adapter", lambda _, name, layout: made[[ids.index(name)]])
        yield made


@pytest.fixture(scope="module")
def service(
    small_library: Path,
    adapters: Adapter,
    ids: list[str],
    tiny_base: Path,
    encoder: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Service:
    folder = tmp_path_factory.mktemp("gates")
    for name in TRAINED:
        gate = trained(name, ids, adapters.layout)
        save_checkpoint(folder / name, gate, CheckpointInfo())
    settings = Settings(
        data=folder / "data",
        bases={"tiny": str(tiny_base)},
        gates={name: folder / name for name in TRAINED},
    )
    return Service(settings, Engine([], resources_of(small_library, encoder)))


@pytest.fixture(scope="module")
def base(service: Service) -> BaseModel:
    return service.engine.resources.model(service.settings.base())


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[httpx.Client]:
    with serving(create_app(service)) as port:
        yield httpx.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=60)


def expected(base: BaseModel, name: str, adapters: Adapter, ids: Sequence[str], prompt: Any) -> str:
    """What the benchmark of gates decodes."""
    system = SYSTEMS[name]
    experts = experts_of(system, adapters)
    untrained = name in UNTRAINED
    gate = Prototypes(system, experts) if untrained else trained(name, ids, adapters.layout)
    with closing(GatedAdapter(base.model, gate, system, experts.layout)) as hooks:
        (found,) = decode(
            base, [prompt], experts, [[1.0] * len(adapters)], max_new_tokens=16, hooks=hooks
        )
    return text_of(base, found)


def answer(client: httpx.Client, **body: Any) -> dict[str, Any]:
    path = "/completions" if "prompt" in body else "/chat/completions"
    response = client.post(path, json={"temperature": 0, "max_tokens": 16, **body})
    assert response.status_code == 200, response.text
    return response.json()


def streamed(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    asked = {"temperature": 0, "max_tokens": 16, "stream": True, **body}
    with client.stream("POST", "/completions", json=asked) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: "))["choices"][0] for line in lines[:-1]]


@pytest.mark.parametrize("name", [*UNTRAINED, *TRAINED])
def test_answers_are_those_of_decoding_under_the_gate(
    client: httpx.Client, base: BaseModel, adapters: Adapter, ids: list[str], name: str
) -> None:
    model, others = f"route:{name}", set()
    for prompt in PROMPTS:
        tokens = base.tokenizer(prompt)["input_ids"]
        here = expected(base, name, adapters, ids, tokens)
        made = answer(client, model=model, prompt=prompt, logprobs=2)
        assert made["choices"][0]["text"] == here and made["model"] == model
        assert made["usage"]["prompt_tokens"] == len(tokens)
        parts = streamed(client, model=model, prompt=prompt, logprobs=2)
        assert "".join(part["text"] for part in parts) == here
        spoken = [part["logprobs"]["token_logprobs"] for part in parts if part["logprobs"]]
        assert [*chain.from_iterable(spoken)] == made["choices"][0]["logprobs"]["token_logprobs"]
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
        told = answer(client, model=model, messages=chat)["choices"][0]["message"]["content"]
        assert told == expected(base, name, adapters, ids, chat_ids(base.tokenizer, chat))
        others.add(answer(client, model="tiny", prompt=prompt)["choices"][0]["text"] == here)
    assert False in others  # the gate makes a difference


def test_stops_choices_and_seeds_are_those_of_other_models(client: httpx.Client) -> None:
    asked = {"model": "route:arrow", "prompt": PROMPTS[0], "temperature": 1, "seed": 5}
    whole = answer(client, **asked)["choices"][0]
    assert whole == answer(client, **asked)["choices"][0]
    stop = whole["text"][3:5]
    cut = answer(client, **asked, stop=stop)["choices"][0]
    said = whole["text"][: whole["text"].index(stop)]
    assert (cut["text"], cut["finish_reason"]) == (said, "stop")
    one = answer(client, **asked, guided_choice=["yes", "no"])["choices"][0]
    assert one["text"] in ("yes", "no")
    assert client.post("/completions", json={**asked, "prompt": "word " * 300}).status_code == 422
    for empty in ("", " "):
        messages = [{"role": "user", "content": empty}]
        assert answer(client, model="route:arrow", messages=messages)["usage"]["prompt_tokens"]


def test_with_others_at_once_each_gets_what_it_gets_alone(
    client: httpx.Client, base: BaseModel
) -> None:
    asked = [
        {"model": ("route:spectr", "tiny", "route:x-lora")[i % 3], "prompt": f"One two {i}"}
        for i in range(6)
    ]
    alone = [answer(client, **body)["choices"][0]["text"] for body in asked]

    def ask(body: dict[str, Any]) -> str:
        return "".join(part["text"] for part in streamed(client, **body))

    with ThreadPoolExecutor(len(asked)) as pool:
        with turn(base.model):
            waiting = [pool.submit(ask, body) for body in asked]
            time.sleep(0.5)
        assert [each.result() for each in waiting] == alone
    with turn(base.model):
        assert not any(module._forward_hooks for module in base.model.modules())


def test_a_gate_that_is_not_trained_chooses_among_the_nearest(
    service: Service, ids: list[str], adapters: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Gates(service.settings, lambda: service.engine.resources)
    there = service.engine.resources.retriever(service.settings.base())
    text = "Subtract one number from the other."
    near = [n.id for n in there.nearest(there.embed(text), 2)]

    def taken(name: str) -> Adapter:
        hooks = made.find(f"route:{name}", text)[1]
        assert "experts" not in vars(hooks)  # who waits holds no copy
        return hooks.experts

    assert len(taken("arrow")) == len(ids) == 3
    monkeypatch.setattr(gates, "MOST_EXPERTS", 2)
    wanted = adapters[[ids.index(name) for name in near]]
    for ours, theirs in zip(taken("arrow").factors(), wanted.factors(), strict=True):
        assert ours.equal(theirs)
    assert len(taken("mixlora")) == 3  # has adapters of its own


def test_a_library_that_changes_is_followed(
    service: Service, small_library: Path, adapters: Adapter, encoder: Any, tmp_path: Path
) -> None:
    copy = shutil.copytree(small_library, tmp_path / "shelf")
    resources = resources_of(copy, encoder)
    made = Gates(service.settings, lambda: resources)

    def experts() -> int:
        return len(made.find("route:lag", "a")[1].experts)

    assert experts() == 3
    next((copy / "lib" / "records").rglob("*.json")).unlink()
    resources._followed = -FOLLOW_SECONDS  # as if the last look had been long ago
    assert experts() == 2


def test_gates_are_listed_where_a_library_fits_a_base(
    client: httpx.Client, small_library: Path, tmp_path: Path, tiny_base: Path, encoder: Any
) -> None:
    listed = {m["id"]: m["parent"] for m in client.get("/models").json()["data"]}
    names = [f"route:{name}" for name in (*UNTRAINED, *TRAINED)]
    assert listed == {"tiny": None, **dict.fromkeys(names, "tiny")}
    for name in ("arow", "nearest", ""):
        refused = client.post("/completions", json={"model": f"route:{name}", "prompt": "a"})
        assert refused.status_code == 404 and refused.json()["code"] == "not-found"
        assert f"there is no model 'route:{name}'" in refused.json()["detail"]
        assert all(name in refused.json()["detail"] for name in names)
    bases = {"gone": str(tmp_path / "none"), "default": "hub:a/b", "tiny": str(tiny_base)}
    settings = Settings(data=tmp_path, bases=bases)
    service = Service(settings, Engine([], resources_of(small_library, encoder)))
    found = Gates(settings, lambda: service.engine.resources).find("route:lag", "a")[0]
    assert found.name == "tiny"  # not the first, which the library is not for


def problem(service: Service, model: str = "route:arrow") -> tuple[int, str, str]:
    with TestClient(create_app(service), LOCALHOST) as client:
        made = client.post("/v1/completions", json={"model": model, "prompt": "a"})
        listed = [m["id"] for m in client.get("/v1/models").json()["data"]]
        assert "tiny" in listed
    return made.status_code, made.json()["code"], made.json()["detail"]


def test_what_a_gate_lacks_is_a_problem(
    service: Service,
    small_library: Path,
    ids: list[str],
    adapters: Adapter,
    tmp_path: Path,
    tiny_base: Path,
    endless_base: Path,
    encoder: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(data=tmp_path / "data", bases={"tiny": str(tiny_base)})
    status, code, detail = problem(Service(settings, nothing_made()))
    assert (status, code) == (422, "invalid-field") and "no library" in detail
    engine = Engine([], resources_of(small_library, encoder))
    other = Settings(data=tmp_path / "data", bases={"tiny": str(endless_base)})
    status, code, detail = problem(Service(other, engine))
    assert (status, code) == (409, "layout-mismatch") and "other weights" in detail

    deep = layout_of(tiny.config("llama"), ["q_proj"], rank=2)
    for name, gate in (
        ("lost", trained("mixlora", [ids[0], "ad_lost"], adapters.layout)),
        ("deep", trained("mixlora", ids, deep)),
    ):
        save_checkpoint(tmp_path / name, gate, CheckpointInfo())
    both = {name: tmp_path / name for name in ("lost", "deep")}
    configured = Service(settings.model_copy(update={"gates": both}), engine)
    status, code, detail = problem(configured, "route:lost")
    assert (status, code) == (404, "not-found") and "needs ad_lost, which is not" in detail
    status, code, detail = problem(configured, "route:deep")
    assert (status, code) == (409, "layout-mismatch") and "'route:deep'" in detail

    there = engine.resources.retriever(settings.base())
    monkeypatch.setitem(vars(there), "experts", there.experts[:1])
    status, code, detail = problem(Service(settings, engine))
    assert (status, code) == (422, "invalid-field") and "two adapters or more" in detail


def test_an_adapter_that_is_lost_is_a_problem(
    service: Service,
    small_library: Path,
    ids: list[str],
    encoder: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retriever, "read_adapter", read_adapter)
    copy = shutil.copytree(small_library, tmp_path / "shelf")
    (copy / "lib" / "adapters" / ids[1] / "adapter_model.safetensors").unlink()
    settings = service.settings.model_copy(update={"data": tmp_path / "data"})
    engine = Engine([], resources_of(copy, encoder))
    for model in ("route:arrow", "route:mixlora"):
        status, code, detail = problem(Service(settings, engine), model)
        assert (status, code) == (404, "not-found")
        assert detail == f"'{model}' needs {ids[1]}, which the library has lost or holds damaged"


def test_gates_that_cannot_be_served_are_refused_at_the_start(
    service: Service, small_checkpoint: Path, tmp_path: Path
) -> None:
    def refused(name: str, folder: Path) -> tuple[type[LorasmithError], str]:
        settings = service.settings.model_copy(update={"gates": {name: folder}})
        with pytest.raises(LorasmithError) as caught:
            Gates(settings, lambda: service.engine.resources)
        return caught.type, str(caught.value)

    kind, text = refused("arrow", service.settings.gates["mixlora"])
    assert kind is UsageError and "arrow is a gate that needs no training" in text
    assert refused("mine", tmp_path / "none")[0] is MissingPath
    assert refused("mine", small_checkpoint)[0] is CheckpointError
