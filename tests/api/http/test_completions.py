"""Completions for OpenAI's clients: held to PEFT, to the model, and to openai-python as it is."""

import json
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from rest import LOCALHOST, UNKNOWN_ID, serving
from starlette.testclient import TestClient
from stored import nothing_made, random_adapters, stored

from api.http.app import create_app
from api.service.service import Service
from api.service.settings import Settings
from library.base.joint_completion import MOST_ROWS
from library.base.turns import turn

CHAT = [{"role": "user", "content": "Say yes or no."}]
TEXT = "One two"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Service:
    data = tmp_path_factory.mktemp("completions")
    return Service(Settings(data=data, bases={"tiny": str(tiny_base)}), nothing_made())


@pytest.fixture(scope="module")
def model(service: Service) -> str:
    base = service.settings.base()
    return f"generated/{stored(service, random_adapters(base), base)}"


@pytest.fixture(scope="module")
def port(service: Service) -> Iterator[int]:
    with serving(create_app(service)) as port:
        yield port


@pytest.fixture(scope="module")
def client(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def ai(port: int) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0
    ) as client:
        yield client


def assert_problem(response: Any, status: int, code: str) -> None:
    """A problem as elsewhere, with what OpenAI's clients show of it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert {*body} == {"code", "detail", "error", "instance", "status", "title", "type"}
    assert body["code"] == code and body["status"] == status
    assert body["error"]["message"] == body["detail"] and body["error"]["code"] == code


def answer(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture(scope="module")
def oracle(service: Service, model: str, tiny_base: Path) -> Any:
    """The stored folder under PEFT."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = service.store.path(model.removeprefix("generated/"))
    base = AutoModelForCausalLM.from_pretrained(tiny_base)
    return PeftModel.from_pretrained(base, str(folder)).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base)


def test_greedy_answers_are_those_of_transformers_under_peft(
    client: httpx.Client, model: str, oracle: Any, tokenizer: Any
) -> None:
    def expected(ids: torch.Tensor, under: Any) -> str:
        out = under.generate(input_ids=ids, max_new_tokens=16, do_sample=False)
        return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)

    found = set()
    for prompt in (TEXT, "The soup was cold.", "a", "Why?"):
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": prompt}]
        chat = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )["input_ids"]
        with oracle.disable_adapter():
            alone = expected(ids, oracle)
        asked = {"temperature": 0, "max_tokens": 16}
        under = answer(client, "/completions", model=model, prompt=prompt, **asked)
        assert under["choices"][0]["text"] == expected(ids, oracle)
        bare = answer(client, "/completions", model="tiny", prompt=prompt, **asked)
        assert bare["choices"][0]["text"] == alone
        told = answer(client, "/chat/completions", model=model[10:], messages=turns, **asked)
        assert told["choices"][0]["message"]["content"] == expected(chat, oracle)
        assert told["usage"]["prompt_tokens"] == chat.shape[1]
        found |= {under["choices"][0]["text"], alone}
    assert len(found) > 5


def test_logprobs_are_the_models_own_in_both_shapes(
    client: httpx.Client, model: str, oracle: Any, tokenizer: Any
) -> None:
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    options = {"model": model, "temperature": 0}
    text = answer(client, "/completions", prompt=TEXT, logprobs=2, **options)
    with torch.inference_mode():
        taken = oracle.generate(input_ids=ids, max_new_tokens=16, do_sample=False)
        logits = oracle(input_ids=taken).logits[0, ids.shape[1] - 1 : -1]
    own, spoken = logits.double().log_softmax(-1), text["choices"][0]["logprobs"]
    answered = taken[0, ids.shape[1] :].tolist()
    assert spoken["tokens"] == [tokenizer.decode([token]) for token in answered]
    chosen = own.gather(-1, torch.tensor(answered)[:, None])[:, 0].tolist()
    assert spoken["token_logprobs"] == pytest.approx(chosen, abs=1e-4)
    assert spoken["text_offset"][0] == 0
    assert text["usage"]["completion_tokens"] == len(answered) == len(spoken["text_offset"])
    for step, best in enumerate(spoken["top_logprobs"]):
        values, tokens = own[step].topk(2)
        named = {tokenizer.decode([t]): v for t, v in zip(tokens, values.tolist(), strict=True)}
        assert best == pytest.approx(named, abs=1e-4)

    asked = {"messages": CHAT, "logprobs": True, "top_logprobs": 3, "max_tokens": 5, **options}
    chat = answer(client, "/chat/completions", **asked)["choices"][0]["logprobs"]["content"]
    for token in chat:
        best = [top["logprob"] for top in token["top_logprobs"]]
        assert best == sorted(best, reverse=True) and len(best) == 3
        assert token["logprob"] <= best[0] < 0
        assert token["bytes"] in (None, list(token["token"].encode()))
    plain = answer(client, "/chat/completions", **{**asked, "logprobs": None, "top_logprobs": None})
    assert plain["choices"][0]["logprobs"] is None


def chunks(client: httpx.Client, path: str, **body: Any) -> list[dict[str, Any]]:
    with client.stream("POST", path, json={**body, "stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_joined_is_the_answer(client: httpx.Client, model: str, seed: int) -> None:
    text = {"model": model, "prompt": TEXT, "seed": seed, "max_tokens": 24, "logprobs": 1}
    whole = answer(client, "/completions", **text)["choices"][0]
    parts = [chunk["choices"][0] for chunk in chunks(client, "/completions", **text)]
    assert "".join(part["text"] for part in parts) == whole["text"]
    assert parts[-1]["finish_reason"] == whole["finish_reason"]
    for name, values in whole["logprobs"].items():
        streamed = [part["logprobs"][name] for part in parts if part["logprobs"]]
        assert [*chain.from_iterable(streamed)] == values, name

    chat = {"model": model, "messages": CHAT, "seed": seed, "max_completion_tokens": 24}
    whole = answer(client, "/chat/completions", **chat)["choices"][0]
    parts = [chunk["choices"][0] for chunk in chunks(client, "/chat/completions", **chat)]
    assert parts[0]["delta"] == {"role": "assistant", "content": ""}
    assert (
        "".join(part["delta"].get("content", "") for part in parts) == whole["message"]["content"]
    )
    assert parts[-1]["delta"] == {} and parts[-1]["finish_reason"] == whole["finish_reason"]


def test_stops_choices_seeds_and_lengths(client: httpx.Client, model: str) -> None:
    text = {"model": model, "prompt": TEXT, "seed": 5, "max_tokens": 12}
    whole = answer(client, "/completions", **text)
    assert whole["choices"][0] == answer(client, "/completions", **text)["choices"][0]
    other = answer(client, "/completions", **{**text, "seed": 6})["choices"][0]
    assert whole["choices"][0] != other
    said = whole["choices"][0]["text"]
    stop = said[3:5]
    for stops in (stop, ["\x01", stop]):
        cut = answer(client, "/completions", **text, stop=stops)["choices"][0]
        assert (cut["text"], cut["finish_reason"]) == (said[: said.index(stop)], "stop")
    short = answer(client, "/completions", **{**text, "max_tokens": 2})
    assert short["choices"][0]["finish_reason"] == "length"
    assert short["usage"]["completion_tokens"] == 2
    assert said.startswith(short["choices"][0]["text"])

    choices, found = ["positive", "negative"], set()
    for seed in range(20):
        asked = {"model": model, "messages": CHAT, "guided_choice": choices, "seed": seed}
        made = answer(client, "/chat/completions", max_tokens=1, **asked)["choices"][0]
        found.add(made["message"]["content"])
        assert made["finish_reason"] == "stop"
    assert found == {*choices}


def test_openai_python_reads_it_all(ai: openai.OpenAI, model: str, client: httpx.Client) -> None:
    listed = {m.id: m for m in ai.models.list()}
    assert [*listed] == ["tiny", model]
    assert listed[model].model_extra == {"parent": "tiny"}
    chat: Any = {"model": model, "messages": CHAT, "seed": 1, "max_tokens": 9}
    made = ai.chat.completions.create(**chat, logprobs=True, top_logprobs=1)
    choice = made.choices[0]
    assert choice.logprobs and choice.logprobs.content and made.usage
    assert len(choice.logprobs.content) == made.usage.completion_tokens
    streamed = ai.chat.completions.create(**chat, stream=True)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in streamed)
    assert said == choice.message.content
    text = ai.completions.create(model="tiny", prompt=TEXT, logprobs=0, temperature=0)
    shown = text.choices[0].logprobs
    assert (
        shown and shown.token_logprobs and all(math.exp(v or 1) <= 1 for v in shown.token_logprobs)
    )
    guided = ai.chat.completions.create(**chat, extra_body={"guided_choice": ["red", "blue"]})
    assert guided.choices[0].message.content in ("red", "blue")
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4'") as caught:
        ai.chat.completions.create(model="gpt-4", messages=CHAT)  # type: ignore[arg-type]
    assert caught.value.code == "not-found"


def test_what_is_wrong_is_a_problem(client: httpx.Client, model: str) -> None:
    def refused(path: str = "/completions", **body: Any) -> httpx.Response:
        text = {"prompt": TEXT} if path == "/completions" else {"messages": CHAT}
        return client.post(path, json={"model": model, **text, **body})

    for name in ("gpt-4", UNKNOWN_ID, f"generated/{UNKNOWN_ID}", "generated/tiny", "", "/etc"):
        assert_problem(refused(model=name), 404, "not-found")
        assert_problem(refused(model=name, stream=True), 404, "not-found")
    for body in (
        {"prompt": "word " * 300},
        {"prompt": ""},
        {"max_tokens": 255},
        {"max_tokens": 0},
        {"temperature": -1},
        {"temperature": 2.5},
        {"top_p": 0},
        {"seed": 2**63},
        {"n": 2},
        {"stop": [""]},
        {"stop": ["a"] * 5},
        {"logprobs": 21},
        {"guided_choice": []},
        {"guided_choice": ["<|im_end|>"]},
        {"guided_choice": ["word " * 300]},
        {"echo": True},
        {"model": None},
    ):
        assert_problem(refused(**body), 422, "invalid-field")
    chat = "/chat/completions"
    for body in (
        {"messages": []},
        {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": "word " * 300}]},
        {"top_logprobs": 2},
        {"max_tokens": 2, "max_completion_tokens": 3},
    ):
        assert_problem(refused(chat, **body), 422, "invalid-field")
    assert "256" in refused(prompt="word " * 300).json()["detail"]


def test_clients_at_once_get_in_one_batch_what_each_gets_alone(
    client: httpx.Client, service: Service
) -> None:
    base = service.settings.base()
    made = random_adapters(base, 3)
    models = ["tiny", *(stored(service, made[[i]], base) for i in range(3))]
    loaded = service.engine.resources.model(base).model
    asked = [
        {
            "model": models[i % 4], "prompt": "One two three four five"[: 3 + 2 * i],
            "seed": i, "temperature": i % 3, "max_tokens": 24, "logprobs": 1, "stream": i > 5,
        }
        for i in range(MOST_ROWS)
    ]  # fmt: skip
    alone = [answer(client, "/completions", **{**body, "stream": False}) for body in asked]
    rows: list[int] = []

    def note(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        rows.append(len(given["input_ids"]))

    def ask(body: dict[str, Any]) -> list[Any]:
        whole = [answer(client, "/completions", **body)] if not body["stream"] else None
        return [part["choices"][0] for part in whole or chunks(client, "/completions", **body)]

    handle = loaded.register_forward_pre_hook(note, with_kwargs=True)
    with ThreadPoolExecutor(len(asked)) as pool:
        with turn(loaded):
            waiting = [pool.submit(ask, body) for body in asked]
            time.sleep(0.5)
        together = [each.result() for each in waiting]
    handle.remove()
    for parts, whole in zip(together, alone, strict=True):
        expected = whole["choices"][0]
        assert "".join(part["text"] for part in parts) == expected["text"]
        assert parts[-1]["finish_reason"] == expected["finish_reason"]
        found = chain.from_iterable(
            part["logprobs"]["token_logprobs"] for part in parts if part["logprobs"]
        )
        assert [*found] == pytest.approx(expected["logprobs"]["token_logprobs"], abs=1e-4)
    tokens = sum(whole["usage"]["completion_tokens"] for whole in alone)
    assert max(rows) > 4 and len(rows) < tokens / 2


def test_an_answer_that_waits_holds_up_nothing_else(
    client: httpx.Client, service: Service, model: str
) -> None:
    lock = turn(service.engine.resources.model(service.settings.base()).model)
    body = {"model": model, "prompt": TEXT, "temperature": 0}
    codes: list[int] = []
    asking = threading.Thread(
        target=lambda: codes.append(client.post("/completions", json=body).status_code)
    )
    with lock:  # as while something else asks the base
        asking.start()
        asking.join(0.3)
        assert asking.is_alive()
        for path in ("/models", f"/adapters/{model[10:]}/files/README.md"):
            assert client.get(path).status_code == 200
    asking.join(30)
    assert codes == [200]


def test_a_full_line_is_429_and_who_leaves_makes_room(tmp_path: Path, endless_base: Path) -> None:
    settings = Settings(data=tmp_path, bases={"tiny": str(endless_base)}, queue_length=0)
    service = Service(settings, nothing_made())

    def slowly() -> bool:  # asked for every token
        time.sleep(0.1)
        return False

    service.stopping = slowly
    body = {"model": "tiny", "prompt": TEXT, "max_tokens": 240}
    with serving(create_app(service)) as port, ExitStack() as streams:
        url = f"http://127.0.0.1:{port}/v1/completions"
        kept: list[Iterator[str]] = []  # one that is dropped would close its answer

        def streamed() -> ExitStack:
            stream = httpx.stream("POST", url, json={**body, "stream": True}, timeout=30)
            one = streams.enter_context(ExitStack())
            kept.append(one.enter_context(stream).iter_lines())
            assert next(kept[-1]).startswith("data: ")
            return one

        def room() -> httpx.Response:
            deadline = time.monotonic() + 5
            while (found := httpx.post(url, json={**body, "max_tokens": 1})).status_code == 429:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            return found

        first, *_ = [streamed() for _ in range(MOST_ROWS)]
        for stream in (True, False):
            refused = httpx.post(url, json={**body, "stream": stream})
            assert_problem(refused, 429, "overloaded")
            assert refused.headers["retry-after"] == "2"
        first.close()
        assert room().status_code == 200  # long before the others have ended
        streams.close()

        service.stopping = lambda: True
        assert_problem(room(), 503, "not-ready")
        ended = httpx.post(url, json={**body, "stream": True}).text
        assert json.loads(ended.removeprefix("data: "))["error"]["code"] == "not-ready"


def test_an_adapter_of_another_base_is_422(tmp_path: Path, tiny_base: Path, base: Any) -> None:
    service = Service(Settings(data=tmp_path, bases={"tiny": str(tiny_base)}), nothing_made())
    name = stored(service, random_adapters(base), base)  # under the folder's name
    with TestClient(create_app(service), LOCALHOST) as client:
        answer = client.post("/v1/completions", json={"model": name, "prompt": "a"})
        assert_problem(answer, 422, "unknown-name")
