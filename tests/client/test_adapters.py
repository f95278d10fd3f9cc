"""The Python client makes, fetches, trains and merges adapters as the service has them."""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
from asked import asked, kind, url  # noqa: F401  (fixtures)
from jobs import (  # noqa: F401  (fixtures)
    EXAMPLES,
    TASK,
    Halt,
    engine,
    gate_of,
    library,
    service,
    settings,
    stored,
    tasks,
)

from api.service.service import Service
from api.service.settings import Settings
from lorasmith_client import (
    Adapter,
    Client,
    Conflict,
    Job,
    JobFailed,
    JobTimeout,
    NotFound,
    Problem,
)

OTHER = "Add the two numbers."


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_an_adapter_is_made_fetched_listed_and_deleted(
    asked: Any, settings: Settings, tmp_path: Path
) -> None:
    made = asked.create(TASK, generator="text-to-lora", rank=2, seed=3, strength=0.5)
    assert isinstance(made, Adapter) and (made.rank, made.seed) == (2, 3)
    assert made.generator == made.chosen.strategy == "text-to-lora"
    assert asked.create(TASK, generator="text-to-lora", rank=2, seed=3, strength=0.5) == made
    assert asked.get(made.id) == made
    kept = contents(settings.data / "adapters" / made.id)
    folder = asked.download(made.id, tmp_path / "deep" / "adapter")
    assert contents(folder) == kept and set(kept) == {*made.files}
    for name, file in made.files.items():
        assert asked.read_file(made.id, name) == kept[name]
        assert (file.sha256, file.bytes) == (
            hashlib.sha256(kept[name]).hexdigest(),
            len(kept[name]),
        )
    some = asked.download(made.id, tmp_path / "some", ["adapter_config.json"])
    assert [file.name for file in some.iterdir()] == ["adapter_config.json"]
    with pytest.raises(FileExistsError):
        asked.download(made.id, folder)
    with pytest.raises(NotFound):
        asked.download(made.id, tmp_path / "none", ["adapter_config.json", "none.json"])
    assert not (tmp_path / "none").exists()
    tar = asked.download_archive(made.id, tmp_path / "a.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert {Path(member.name).name for member in archive} == {*made.files}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] == ".") == []
    other = asked.create(OTHER)
    first = asked.list(limit=1)
    last = asked.list(cursor=first.next)
    assert {one.id for one in first.adapters + last.adapters} == {made.id, other.id}
    assert last.next is None
    asked.delete(made.id)
    with pytest.raises(NotFound) as caught:
        asked.get(made.id)
    assert (caught.value.code, caught.value.status) == ("not-found", 404)


def test_training_is_waited_for_or_a_job(url: str, settings: Settings) -> None:
    asked = Client(url)
    fields: dict[str, Any] = {"examples": EXAMPLES, "refine": 2}
    job = asked.submit(TASK, idempotency_key="mine", **fields)
    assert isinstance(job, Job) and job.kind == "create"
    assert asked.submit(TASK, idempotency_key="mine", **fields).id == job.id
    ended = asked.wait(job.id)
    assert ended.state == "done" and ended.ended and isinstance(ended.result, Adapter)
    assert asked.create(TASK, idempotency_key="mine", **fields) == ended.result
    assert list(asked.events(job.id)) == [ended]
    further = asked.refine(ended.result.id, examples=EXAMPLES, steps=1)
    assert further.start == ended.result.id and further.refined.steps == 1
    assert stored(settings) == sorted([ended.result.id, further.id])


def test_a_job_can_be_cancelled_and_then_has_no_result(asked: Any, service: Service) -> None:
    halt = Halt(service)
    job = asked.submit(TASK, examples=EXAMPLES, refine=50)
    assert halt.started.wait(60)
    with pytest.raises(JobTimeout, match="running"):
        asked.wait(job.id, seconds=0.05)
    assert asked.cancel(job.id).state == "cancelled"
    halt.go.set()
    with pytest.raises(JobFailed) as caught:
        asked.finished(job)
    assert caught.value.job.state == "cancelled"
    assert pickle.loads(pickle.dumps(caught.value)).job == caught.value.job


def test_a_verification_is_followed(asked: Any, service: Service) -> None:
    adapter = asked.create(TASK).id
    found = asked.verify(adapter, hooks=["format", "integrity"])
    assert found.verdict == "accept" and {f.hook for f in found.findings} <= {"format", "integrity"}
    gate_of(service).go.set()
    job = asked.submit_verify(adapter, hooks=["gate"])
    events = list(asked.events(job.id))
    assert events[-1].state == "done" and events[-1].result.findings[0].code == "opened"
    with pytest.raises(NotFound):
        list(asked.events("job_" + "0" * 32))


def test_a_batch_has_adapters_and_problems(asked: Any) -> None:
    made, wrong = asked.batch([{"description": TASK, "rank": 2}, {"description": "", "rank": 2}])
    assert made == asked.create(TASK, rank=2)
    assert isinstance(wrong, Problem) and wrong.code == "invalid-description"


def test_adapters_are_merged_and_imported(asked: Any, tmp_path: Path) -> None:
    one, two = asked.create(TASK), asked.create(OTHER)
    merged = asked.compose([one.id, two.id], weights=[0.7, 0.3])
    assert merged.chosen.strategy == "compose"
    slow = asked.submit_compose([one.id, two.id], method="ties")
    assert isinstance(slow, Job)
    assert asked.compose([one.id, two.id], method="ties") == asked.finished(slow)
    assert asked.finished(merged) == merged
    folder = asked.download(merged.id, tmp_path / "merged")
    tar = asked.download_archive(merged.id, tmp_path / "merged.tar")
    (folder / "optimizer.pt").write_bytes(b"no part of an adapter")
    for source in (folder, tar):
        asked.delete(merged.id)
        assert asked.import_adapter(source).id == merged.id
        again = contents(asked.download(merged.id, tmp_path / f"again-{source.name}"))
        assert again == {name: (folder / name).read_bytes() for name in merged.files}


def test_names(asked: Any) -> None:
    one, two = asked.create(TASK), asked.create(OTHER)
    suite = [{"input": "3 and 4", "output": "7"}, {"input": "1 and 1", "outputs": ["2", "two"]}]
    assert asked.publish("sums", one.id, suite).version == 1
    assert asked.promote("sums").action == "promoted"
    assert asked.publish("sums", two.id).adapter == two.id
    job = asked.submit_promote("sums", version=2, at_least=2)
    ended = asked.wait(job.id).result
    assert (ended.before, ended.after) == (1, 2)
    assert ended.scores.of == 2 and ended.scores.at_least == 2
    assert asked.get("sums@v2") == two
    (listed,) = asked.names()
    shown = asked.name("sums")
    assert (listed.name, shown.newest, shown.suite.rows) == ("sums", 2, 2)
    assert [move.action for move in shown.history] == ["promoted", ended.action]
    if ended.action == "promoted":
        assert asked.rollback("sums").after == 1
    else:
        with pytest.raises(Conflict):
            asked.rollback("sums")
    asked.delete_name("sums")
    with pytest.raises(NotFound):
        asked.name("sums")


def test_what_there_is(asked: Any) -> None:
    asked.live(), asked.ready()
    assert {"auto", "text-to-lora"} <= {one.name for one in asked.generators()}
    assert [one.name for one in asked.base_models()] == ["tiny"]
    page = asked.library(limit=2)
    assert page.adapters + asked.library(cursor=page.next).adapters == asked.library().adapters
    best, *_ = asked.search("Is the review positive or negative?", k=2)
    assert best.id in {one.id for one in asked.library().adapters} and best.by == "description"
    assert asked.library_adapter(best.id).task == best.task
    drawn = asked.library_map("Is the review positive or negative?")
    assert drawn.query is not None and drawn.total == len(drawn.adapters)
    assert {one.id for one in drawn.adapters} == {one.id for one in asked.library().adapters}
    with pytest.raises(Problem, match="none such"):
        asked.search("anything", recipe="none such")
    assert "lorasmith_http_requests_total" in asked.metrics()
    adapter = asked.create(TASK)
    gates = {"route:arrow", "route:spectr", "route:lag"}
    models = {one.id: one.parent for one in asked.models()}
    assert {*models} == {"tiny", f"generated/{adapter.id}", *gates}
    assert {models[name] for name in gates} == {"tiny"}
    words = {"guided_choice": ["positive", "negative"], "temperature": 0}
    answer = asked.chat(f"generated/{adapter.id}", [{"role": "user", "content": "Great!"}], **words)
    assert answer.text in words["guided_choice"] and answer.reason == "stop"
    assert asked.complete("tiny", "Great", max_tokens=2).completion_tokens <= 2
