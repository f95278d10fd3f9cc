"""`verify --served`: planted faults on our own service over HTTP, and servers that are none."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from rest import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from stored import random_adapters

from api.cli.main import main
from api.http.app import create_app
from api.service.service import Service
from api.service.settings import Settings
from api.service.store import LOCAL
from generator.engine import Engine
from generator.resources import Resources
from library.adapter import Adapter
from library.base.models import load_base
from library.files import write_folder
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from verification.artifact import Artifact
from verification.scores.served import check_served
from verification.scores.served_contexts import Predictions
from verification.scores.served_fit import without
from verification.scores.served_server import TOP, CompletionServer, NextTokens, ServerFailed

Files = dict[str, bytes]


def files_of(adapter: Adapter, base: Any, **changes: Any) -> Files:
    """One adapter's folder, with changes to its config."""
    peft = to_peft(adapter, base_name=base.name)
    return {
        CONFIG_FILE: json.dumps({**peft.config, **changes}).encode(),
        WEIGHTS_FILE: peft.weights,
    }


@pytest.fixture(scope="module")
def adapters(base: Any) -> Adapter:
    """Two adapters of rank 3, of the one representation."""
    return random_adapters(base, 2).scaled(0.5)


@dataclass
class World:
    """A service that serves adapters by short names, and its address."""

    service: Service
    url: str
    base: Any

    def serve(self, digit: int, files: Files) -> str:
        """The name of an adapter that is stored under an id of one digit."""
        identity = "ad_" + f"{digit:x}" * 40
        self.service.store.put(LOCAL, {"id": identity, "base_model": self.base.name}, files)
        return f"generated/{identity}"


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def world(
    request: Any, base: Any, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Our own service, with the tiny base in either type."""
    engine = Engine([], Resources(load=partial(load_base, dtype=request.param)))
    settings = Settings(data=tmp_path_factory.mktemp("served"), bases={"tiny": str(tiny_base)})
    service = Service(settings, engine)
    with serving(create_app(service)) as port:
        yield World(service, f"http://127.0.0.1:{port}", settings.base())


@pytest.fixture
def verified(tiny_base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Verifies files against a server: the exit code and the hook's finding."""

    def run(files: Files, url: str, model: str, *options: str) -> tuple[int, dict[str, Any]]:
        if not (tmp_path / "a").exists():
            write_folder(tmp_path / "a", files)
        capsys.readouterr()
        arguments = ["--base", str(tiny_base), "--served", url, "--model", model, "--json"]
        code = main(["verify", str(tmp_path / "a"), *arguments, *options])
        answer = json.loads(capsys.readouterr().out)
        (finding,) = (f for f in answer["findings"] if f["hook"] == "served")
        assert code == int(answer["verdict"] == "refuse")
        assert "\n" not in finding["message"]
        return code, finding

    return run


in_float32, in_bfloat16 = (
    pytest.mark.parametrize("world", [dtype], ids=[str(dtype)], indirect=True)
    for dtype in (torch.float32, torch.bfloat16)
)


@in_bfloat16  # as servers compute
def test_every_fault_gets_its_verdict_and_none_is_no_fault(
    world: World, adapters: Adapter, verified: Any
) -> None:
    own, other = adapters[[0]], adapters[[1]]
    plain = files_of(own, world.base)
    first, second = (world.serve(1, plain), world.serve(2, files_of(other, world.base)))
    double = world.serve(3, files_of(own.scaled(2.0), world.base))

    code, this = verified(plain, world.url + "/v1/", first)
    assert (code, this["code"], this["severity"]) == (0, "served-this", "info")
    assert this["evidence"]["strength"] == pytest.approx(1, abs=0.05)
    assert this["evidence"]["contexts"] >= 20

    code, alone = verified(plain, world.url, "tiny", "--served-base", "tiny")
    assert (code, alone["code"], alone["severity"]) == (1, "served-base", "refuse")
    assert verified(plain, world.url, second)[1]["code"] == "served-other"
    code, strong = verified(plain, world.url, double)
    assert (code, strong["code"]) == (1, "served-strength")
    assert strong["evidence"]["strength"] == pytest.approx(2, rel=0.05)
    assert "2.0" in strong["message"] and "rsLoRA" not in strong["message"]


@in_float32
def test_what_is_missing_is_named(world: World, adapters: Adapter, verified: Any) -> None:
    own = adapters[[0]]
    plain = files_of(own, world.base)
    part = without(own, lambda site: site.depth == 1)
    kind = without(own, lambda site: site.module_type == "q_proj")
    shallow = world.serve(4, files_of(part, world.base))
    values = world.serve(5, files_of(kind, world.base))
    for model, missing in ((shallow, "layer 1"), (values, "every q_proj")):
        code, lacking = verified(plain, world.url, model)
        assert (code, lacking["code"]) == (1, "served-partial")
        assert lacking["evidence"]["missing"] == missing and missing in lacking["message"]


@in_float32
def test_the_scale_of_rslora_left_out_is_named(
    world: World, adapters: Adapter, verified: Any
) -> None:
    own = adapters[[0]]
    right = files_of(own, world.base, use_rslora=True, lora_alpha=math.sqrt(3))
    wrong = files_of(own, world.base, use_rslora=False, lora_alpha=math.sqrt(3))
    assert verified(right, world.url, world.serve(6, right))[1]["code"] == "served-this"
    code, dropped = verified(right, world.url, world.serve(7, wrong))
    assert (code, dropped["code"]) == (1, "served-strength")
    assert dropped["evidence"]["strength"] == pytest.approx(3**-0.5, rel=0.05)
    assert "rsLoRA's scale were left out" in dropped["message"]


@in_float32
def test_an_adapter_that_changes_too_little_is_left_open(
    world: World, adapters: Adapter, verified: Any
) -> None:
    faint = files_of(adapters[[0]].scaled(1e-3), world.base)
    code, finding = verified(faint, world.url, world.serve(8, faint))
    assert (code, finding["code"], finding["severity"]) == (0, "served-undecided", "warn")


class Pretending(CompletionServer):
    """A server in this process: at each round, what an adapter makes of the local base."""

    def __init__(self, local: Predictions, rounds: list[Adapter]) -> None:
        super().__init__("http://nowhere")
        self.rounds = [self._answers(local, adapter) for adapter in rounds]
        self._asked = 0

    def _answers(self, local: Predictions, adapter: Adapter) -> list[NextTokens]:
        values, ids = local.under(adapter).topk(TOP)
        texts = [[local.base.tokenizer.decode([i]) for i in row] for row in ids.tolist()]
        return [dict(zip(*row, strict=True)) for row in zip(texts, values.tolist(), strict=True)]

    def next_tokens(self, model: str, prompt: str) -> NextTokens:
        number, self._asked = self._asked, self._asked + 1
        return list(chain(*self.rounds))[number]


@pytest.fixture(scope="module")
def local(base: Any) -> Predictions:
    return Predictions(load_base(base))


def test_answers_that_change_when_asked_again_are_a_fault(
    local: Predictions, base: Any, adapters: Adapter
) -> None:
    artifact = Artifact(files_of(adapters[[0]], base))
    own, other, none = artifact.adapter, adapters[[1]], adapters[[0]].scaled(0.0)

    def code(*rounds: Adapter) -> str:
        return check_served(Pretending(local, [*rounds]), "a", "b", local, artifact).code

    assert code(none, own, own) == "served-this"
    assert code(none, own, other) == "served-unsteady"
    assert code(other.scaled(4.0), own, own) == "served-undecided"  # the base is another


def test_tokens_that_the_base_does_not_have_are_told(
    local: Predictions, base: Any, adapters: Adapter
) -> None:
    server = Pretending(local, [adapters[[0]]] * 3)
    server.rounds = [[{"\u2603\u2603": -1.0}] * len(local.contexts)] * 3
    with pytest.raises(ServerFailed, match="does not have"):
        check_served(server, "a", "b", local, Artifact(files_of(adapters[[0]], base)))


def test_contexts_are_cut_as_the_server_cuts_them(local: Predictions) -> None:
    """Each row's marked tokens are the ends of what the tokenizer makes of a context alone."""
    found = [
        (row, end) for row, marks in enumerate(local.contexts.ends) for end in marks.nonzero()[:, 0]
    ]
    assert len(found) == len(local.contexts) >= 20
    for text, (row, end) in zip(local.contexts.texts, found, strict=True):
        tokens = local.base.tokenizer(text)["input_ids"]
        assert local.contexts.ids[row, : end + 1].tolist() == tokens


LISTED = {"data": [{"id": "b"}, {"id": "m", "parent": "b"}]}
LIST, COMPLETE = "/v1/models", "/v1/completions"


def completion(logprobs: Any) -> Response:
    return JSONResponse({"choices": [{"text": " a", "logprobs": logprobs}]})


REFUSALS: list[tuple[str, Response, str, str]] = [
    (LIST, PlainTextResponse("<html>"), "served-not-openai", "no list of models"),
    (LIST, JSONResponse({"data": [1]}), "served-not-openai", "no list of models"),
    (LIST, JSONResponse({"data": [{"id": "x"}]}), "served-no-model", "--served-base"),
    (LIST, JSONResponse({}, 401), "served-unauthorised", "put it into LORASMITH_SERVED_KEY"),
    (LIST, PlainTextResponse("", 404), "served-not-openai", "nothing at /v1/models"),
    (LIST, RedirectResponse("/elsewhere"), "served-refused", "not followed"),
    (LIST, PlainTextResponse("x" * 2**21), "served-unreachable", "longer than"),
    (COMPLETE, PlainTextResponse("[]"), "served-not-openai", "no completion"),
    (COMPLETE, JSONResponse({"choices": []}), "served-not-openai", "no completion"),
    (COMPLETE, completion(None), "served-no-logprobs", "no log-probabilities"),
    (COMPLETE, completion({"top_logprobs": [{" a": "x"}]}), "served-no-logprobs", "no log-prob"),
    (COMPLETE, completion({"top_logprobs": [{}]}), "served-no-logprobs", "that are numbers"),
    (
        COMPLETE, JSONResponse({"error": {"message": "no\nmodel m"}}, 404),
        "served-no-model", "no model m",
    ),
    (COMPLETE, JSONResponse({"detail": "later"}, 503), "served-refused", "503: later"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "answer", "code", "told"), REFUSALS)
def test_a_server_that_cannot_be_compared_is_one_sentence(
    path: str, answer: Response, code: str, told: str,
    base: Any, adapters: Adapter, verified: Any,
) -> None:  # fmt: skip
    asked = []

    async def say(request: Request) -> Response:
        asked.append(request.url.path)
        return answer if request.url.path == path else JSONResponse(LISTED)

    app: Any = Starlette(routes=[Route("/{_:path}", say, methods=["GET", "POST"])])
    with serving(app) as port:
        found, finding = verified(files_of(adapters[[0]], base), f"http://127.0.0.1:{port}", "m")
    assert (found, finding["code"], finding["severity"]) == (1, code, "refuse")
    assert told in finding["message"]
    assert asked == [LIST, COMPLETE][: 1 + (path == COMPLETE)]  # nothing is followed or repeated


def test_the_key_is_sent_and_a_wrong_one_is_told(
    base: Any, adapters: Adapter, verified: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    async def say(request: Request) -> Response:
        sent.append(request.headers.get("authorization"))
        return JSONResponse({}, 401)

    monkeypatch.setenv("LORASMITH_SERVED_KEY", "secret\n")
    with serving(Starlette(routes=[Route(LIST, say)])) as port:  # type: ignore[arg-type]
        _, finding = verified(files_of(adapters[[0]], base), f"http://127.0.0.1:{port}", "m")
    assert sent == ["Bearer secret"]
    assert "does not take the key in LORASMITH_SERVED_KEY" in finding["message"]
    assert "secret" not in json.dumps(finding)


def test_a_key_that_no_header_holds_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORASMITH_SERVED_KEY", "se\ncret")
    assert main(["verify", str(tmp_path), "--served", "http://127.0.0.1:1", "--model", "m"]) == 2
    told = tiny.one_sentence(capsys.readouterr())
    assert "LORASMITH_SERVED_KEY" in told and "cret" not in told


def test_a_server_that_is_not_there_is_a_finding(
    base: Any, adapters: Adapter, verified: Any
) -> None:
    code, finding = verified(files_of(adapters[[0]], base), "http://127.0.0.1:1", "m")
    assert (code, finding["code"]) == (1, "served-unreachable")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--served", "http://127.0.0.1:1"], "go together"),
        (["--model", "m"], "go together"),
        (["--served-base", "b"], "go together"),
        (["--served", "127.0.0.1:8000", "--model", "m"], "not a URL"),
        (["--served", "file:///etc/passwd", "--model", "m"], "not a URL"),
        (["--served", "http://me:secret@host", "--model", "m"], "LORASMITH_SERVED_KEY"),
    ],
)
def test_a_wrong_command_line_is_one_sentence(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", str(tmp_path), *options]) == 2
    assert told in tiny.one_sentence(capsys.readouterr())
