"""The catalogue says what the records say, in SQLite and in PostgreSQL, whatever happens to it."""

import json
import math
import multiprocessing
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.cli.main import main
from library.errors import OutputError, UnknownName
from library.peft.provenance import Provenance, finish
from library.peft.write import PeftFiles
from library.store.catalogue import FileCatalogue, check_library, find, remove_adapter
from library.store.folder import LibraryFolder
from library.store.records import Record, Selection
from library.store.sql import SqlCatalogue
from library.store.sql_database import CATALOGUE_SCHEMA, tables

NAMES = ["a", "aa", "ab", "a.b", "B", "a%b", "a_b", "[a]", "ä", "a b"]
TEXTS = st.lists(st.text(max_size=8), max_size=3)
RECORDS = st.builds(
    dict,
    id=st.one_of(st.none(), st.sampled_from([f"ad_{n:040}" for n in range(9)])),
    sha256=st.just("0" * 64),
    task=st.sampled_from(NAMES),
    variant=st.integers(0, 1),
    recipe=st.sampled_from(["lora", "rslora"]),
    base_model=st.sampled_from(["tiny", "small"]),
    rank=st.sampled_from([4, 8]),
    seed=st.integers(0, 2**64),
    license_class=st.sampled_from(["free", "none", None]),
    descriptions=TEXTS.map(lambda texts: ["d", *texts]),
    licenses=TEXTS,
    categories=TEXTS,
    parents=TEXTS,
    scores=st.dictionaries(
        st.sampled_from(["tune_accuracy", "tune_loss"]), st.floats() | st.integers(0, 1) | st.none()
    ),
    created=st.sampled_from(["2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"]),
)
SELECTIONS = st.builds(
    Selection,
    task=st.none() | st.sampled_from(NAMES) | st.text("ab.*?[]%_", max_size=3),
    recipe=st.none() | st.just("lora"),
    license_class=st.none() | st.just("free"),
    base=st.none() | st.just("tiny"),
    rank=st.none() | st.just(8),
    sort=st.sampled_from(["task", "score", "created"]),
    limit=st.none() | st.integers(0, 3),
    after=st.none()
    | st.tuples(
        st.sampled_from(NAMES),
        st.integers(0, 2),
        st.text("ab", max_size=2),
        st.just("records/0000/task2.json"),
    ),
)
# Writes a record to one of six places, or removes it from there.
CHANGES = st.tuples(st.integers(0, 5), st.none() | RECORDS)
few = settings(max_examples=15, suppress_health_check=list(HealthCheck))


def path_of(number: int) -> str:
    return f"records/{number % 2:04}/task{number}.json"


def record(number: int, **changes: Any) -> Record:
    made = {
        "id": f"ad_{number:040}",
        "sha256": "0" * 64,
        "task": f"task{number}",
        "variant": 0,
        "recipe": "lora",
        "base_model": "tiny",
        "rank": 8,
        "scores": {"tune_accuracy": number / 8},
    }
    return made | changes


def library(folder: Path, count: int = 0) -> LibraryFolder:
    made = LibraryFolder(folder)
    made.write_json("library.json", {})
    for number in range(count):
        made.write_json(path_of(number), record(number))
    return made


def listed(folder: LibraryFolder, capsys: pytest.CaptureFixture[str], *more: str) -> list[str]:
    capsys.readouterr()
    assert main(["library", "list", "--library", folder.location, "--json", *more]) == 0
    return [a["task"] for a in json.loads(capsys.readouterr().out)["adapters"]]


def rows(catalogue: SqlCatalogue) -> dict[str, Record]:
    """Records as the rows tell them, by path."""
    with catalogue.engine.connect() as connection:
        found: dict[str, Record] = {}
        for table in tables().metadata.sorted_tables:
            if table is tables().schema:
                continue
            ours = table.c.library == catalogue.database.library
            for row in connection.execute(sa.select(table).where(ours).order_by(*table.c)):
                rest = tuple(row)[2:]
                if table.name == "adapters":
                    found[row.path] = {**row._mapping, "stamp": None}
                else:
                    found[row.path].setdefault(table.name, []).append(rest)
    return found


def as_rows(path: str, record: Record, library: str) -> Record:
    """What `rows` has to say of a record, in the words of the test."""

    def clean(text: str) -> str:
        return text.replace("\0", "\ufffd")

    def number(value: Any) -> float | None:
        return None if value is None or math.isnan(value) else value

    labels = {("license", clean(name)) for name in record["licenses"]}
    labels |= {("category", clean(name)) for name in record["categories"]}
    several = {
        "descriptions": list(enumerate(map(clean, record["descriptions"]))),
        "parents": list(enumerate(map(clean, record["parents"]))),
        "labels": sorted(labels),
        "scores": sorted((name, number(value)) for name, value in record["scores"].items()),
    }
    plain = ("id", "sha256", "task", "variant", "recipe", "base_model", "rank", "license_class",
             "created")  # fmt: skip
    absent = dict.fromkeys(("base_sha256", "layout_digest", "shard", "steps", "stamp"))
    return {
        "library": library,
        "path": path,
        "seed": str(record["seed"]),
        **{name: record[name] for name in plain},
        **absent,
        **{name: found for name, found in several.items() if found},
    }


@contextmanager
def statements(catalogue: SqlCatalogue) -> Iterator[list[str]]:
    """What is sent to the database meanwhile."""
    sent: list[str] = []

    def hear(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        sent.append(statement)

    sa.event.listen(catalogue.engine, "before_cursor_execute", hear)
    yield sent
    sa.event.remove(catalogue.engine, "before_cursor_execute", hear)


@few
@given(rounds=st.lists(st.lists(CHANGES, max_size=6), min_size=1, max_size=3), wanted=SELECTIONS)
def test_rows_and_answers_are_those_of_the_records(
    catalogue_url: str | None, rounds: list[Any], wanted: Selection
) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = library(Path(place))
        ours, theirs = SqlCatalogue(folder, catalogue_url), FileCatalogue(folder)
        there: dict[str, Record] = {}
        for changes in rounds:
            for number, made in changes:
                path = path_of(number)
                there.pop(path, None)
                folder.remove(path)
                if made is not None:
                    there[path] = made
                    folder.write_json(path, made)
            for catalogue in (ours, theirs):
                catalogue.refresh()
            expected = {p: as_rows(p, r, ours.database.library) for p, r in there.items()}
            assert rows(ours) == expected
            assert ours.entries(wanted) == theirs.entries(wanted)
            whole = ours.entries(Selection())
            for number, entry in enumerate(whole):
                assert ours.entries(Selection(after=entry.position)) == whole[number + 1 :]
            for identity in ("a", f"ad_{3:040}"):
                assert ours.named(identity) == theirs.named(identity)
        with statements(ours) as sent:
            ours.refresh()
        writes = {"INSERT", "DELETE", "UPDATE", "CREATE", "IMMEDIATE"}
        assert sent and not any(writes & set(statement.split()) for statement in sent)


def _refresh_often(place: str, url: str | None, barrier: Any) -> None:
    barrier.wait()
    for _ in range(5):
        SqlCatalogue(LibraryFolder(place), url).refresh()


def test_four_processes_bring_it_up_to_date_at_once(
    catalogue_url: str | None, tmp_path: Path
) -> None:
    """From nothing, tables included, while records come and go."""
    folder = library(tmp_path / "lib", 40)
    fork = multiprocessing.get_context("fork")
    barrier = fork.Barrier(5)
    arguments = (folder.location, catalogue_url, barrier)
    processes = [fork.Process(target=_refresh_often, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    barrier.wait()
    for number in range(20):
        folder.remove(path_of(number))
        folder.write_json(path_of(40 + number), record(40 + number))
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    catalogue = SqlCatalogue(folder, catalogue_url)
    catalogue.refresh()
    counts = Counter(entry.id for entry in catalogue.entries(Selection()))
    assert counts == {f"ad_{number:040}": 1 for number in range(20, 60)}


def change_schema(catalogue: SqlCatalogue, number: int) -> None:
    """As if the tables were those of another version: another number, other columns."""
    with catalogue.engine.begin() as connection:
        connection.execute(tables().schema.update().values(number=number))
        connection.execute(sa.text("ALTER TABLE adapters DROP COLUMN created"))
        connection.execute(sa.text("ALTER TABLE scores ADD COLUMN spread REAL"))
        connection.execute(sa.text("DROP TABLE parents"))


def schema(catalogue: SqlCatalogue) -> tuple[list[int], set[str]]:
    with catalogue.engine.connect() as connection:
        numbers = list(connection.execute(sa.select(tables().schema.c.number)).scalars())
        columns = {column["name"] for column in sa.inspect(connection).get_columns("scores")}
    return numbers, columns


@pytest.mark.parametrize("number", [CATALOGUE_SCHEMA - 1, CATALOGUE_SCHEMA + 1])
def test_tables_of_another_schema_are_dropped_and_filled_again(
    number: int,
    catalogue_url: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, other = library(tmp_path / "lib", 3), library(tmp_path / "other", 2)
    catalogue, neighbour = SqlCatalogue(folder, catalogue_url), SqlCatalogue(other, catalogue_url)
    for each in (catalogue, neighbour):
        each.refresh()
    before = rows(catalogue), rows(neighbour), schema(catalogue)
    assert before[2][0] == [CATALOGUE_SCHEMA]
    for each in {str(c.database): c for c in (catalogue, neighbour)}.values():
        change_schema(each, number)
    assert listed(folder, capsys) == ["task0", "task1", "task2"]
    assert not capsys.readouterr().err
    neighbour.refresh()
    assert (rows(catalogue), rows(neighbour), schema(catalogue)) == before


def test_two_processes_replace_the_tables_at_once(
    catalogue_url: str | None, tmp_path: Path
) -> None:
    """One of them drops and fills; neither loses a row or fails."""
    folder = library(tmp_path / "lib", 40)
    catalogue = SqlCatalogue(folder, catalogue_url)
    catalogue.refresh()
    before = rows(catalogue)
    fork = multiprocessing.get_context("fork")
    for number in (CATALOGUE_SCHEMA - 1, CATALOGUE_SCHEMA + 1):
        change_schema(catalogue, number)
        barrier = fork.Barrier(2)
        arguments = (folder.location, catalogue_url, barrier)
        processes = [fork.Process(target=_refresh_often, args=arguments) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0, 0]
        assert rows(catalogue) == before and schema(catalogue)[0] == [CATALOGUE_SCHEMA]


def test_tables_that_are_not_ours_are_left_alone(
    catalogue_url: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = catalogue_url or f"sqlite:///{tmp_path / 'shop.sqlite'}"
    folder = library(tmp_path / "lib", 1)
    catalogue = SqlCatalogue(folder, url)
    with catalogue.engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE adapters (plug TEXT)"))
        connection.execute(sa.text("INSERT INTO adapters VALUES ('EU to UK')"))
    assert main(["library", "list", "--library", folder.location, "--catalogue", url]) == 1
    message = capsys.readouterr().err
    assert "adapters" in message and message.count("\n") == 1
    with catalogue.engine.connect() as connection:
        plugs = connection.execute(sa.text("SELECT plug FROM adapters")).scalars().all()
    assert plugs == ["EU to UK"]


def test_a_broken_record_is_named_and_the_rest_still_serves(
    catalogue_url: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = library(tmp_path / "lib", 4)
    folder.write(path_of(1), b'{"id": "ad_1", ')
    folder.write_json(path_of(2), [])
    command = ("--library", folder.location)
    assert main(["library", "list", *command]) == 1
    said = capsys.readouterr().err
    assert f"{folder.location}/{path_of(2)} is damaged" in said and said.count("\n") == 1
    assert main(["library", "show", "task3", *command]) == 0
    assert main(["library", "show", "task1", *command]) == 1
    assert main(["library", "check", *command]) == 1
    said = capsys.readouterr().err
    assert all(path_of(n) in said for n in (1, 2)) and "has lost a file" in said
    folder.write_json(path_of(1), record(1))
    folder.remove(path_of(2))
    assert listed(folder, capsys) == ["task0", "task1", "task3"]


@pytest.mark.parametrize("damage", ["weights", "config", "provenance", "digest in the record"])
def test_check_compares_every_file_with_the_record(damage: str, tmp_path: Path) -> None:
    folder = library(tmp_path)
    base = {"id": "tiny", "sha256": None, "source": "test"}
    provenance = Provenance("test", None, "Do it.", 0, "cpu", "0" * 64, base)
    files = finish(PeftFiles({"r": 8}, b"weights"), provenance)
    folder.write_adapter(files.id, files.files)
    stored = record(0, id=files.id, sha256=files.sha256)
    folder.write_json(path_of(0), stored)
    catalogue = FileCatalogue(folder)
    catalogue.refresh()
    assert check_library(catalogue) == []
    changes = {
        "weights": ("adapter_model.safetensors", b"Weights"),
        "config": ("adapter_config.json", b'{"r": 4}'),
        "provenance": (
            "provenance.json",
            files.files["provenance.json"].replace(b"Do it.", b"Do more."),
        ),
    }
    if damage in changes:
        name, content = changes[damage]
        folder.write(f"adapters/{files.id}/{name}", content)
    else:
        folder.write_json(path_of(0), stored | {"sha256": "0" * 64})
        catalogue.refresh()
    (problem,) = check_library(catalogue)
    assert files.id in problem and "not those of its record" in problem


@pytest.mark.parametrize("name", ["adapter_config.json", "provenance.json"])
@pytest.mark.parametrize("content", [b"[]", b"3", b"{", b'{"seed": 1e999}', b"[" * 100_000])
def test_check_names_what_holds_no_such_json(name: str, content: bytes, tmp_path: Path) -> None:
    folder = library(tmp_path)
    provenance = Provenance("test", None, "Do it.", 0, "cpu", "0" * 64, {})
    files = finish(PeftFiles({"r": 8}, b"weights"), provenance)
    folder.write_adapter(files.id, files.files | {name: content})
    folder.write_json(path_of(0), record(0, id=files.id, sha256=files.sha256))
    catalogue = FileCatalogue(folder)
    catalogue.refresh()
    (problem,) = check_library(catalogue)
    assert problem.startswith(f"{files.id} (task0): ")


def test_an_adapter_is_found_by_id_and_task_and_removed_with_its_record(tmp_path: Path) -> None:
    folder = library(tmp_path, 3)
    for number in range(3):
        folder.write(f"adapters/{record(number)['id']}/adapter_config.json", b"{}")
    folder.write_json(path_of(4), record(1, task="again"))  # the same adapter, of another task
    catalogue = FileCatalogue(folder)
    catalogue.refresh()
    assert find(catalogue, "task2") == find(catalogue, record(2)["id"]) == record(2)
    with pytest.raises(UnknownName):
        find(catalogue, "task")
    assert remove_adapter(catalogue, "again")["id"] == record(1)["id"]
    assert [entry.task for entry in catalogue.entries(Selection())] == ["task0", "task2"]
    assert folder.names("adapters") == [record(0)["id"], record(2)["id"]]
    with pytest.raises(UnknownName):
        find(catalogue, "task1")
    folder.write(path_of(5), b"{")
    catalogue.refresh()
    with pytest.raises(OutputError):
        find(catalogue, "task1")  # it may be the damaged one
    assert find(catalogue, "task0") == record(0)


def test_list_is_filtered_sorted_and_cut(
    catalogue_url: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = library(tmp_path / "lib", 4)
    folder.write_json(path_of(9), record(9, rank=4, task="other", license_class="free"))
    assert listed(folder, capsys, "--task", "task?", "--sort", "score", "--limit", "2") == [
        "task3", "task2",
    ]  # fmt: skip
    assert listed(folder, capsys, "--rank", "4", "--license-class", "free") == ["other"]
    assert listed(folder, capsys, "--base", "large") == []
    assert main(["library", "list", "--library", folder.location, "--sort", "size"]) == 2
    assert main(["library", "remove", "other", "--library", folder.location]) == 0
    assert listed(folder, capsys) == [f"task{n}" for n in range(4)]


def test_surplus_is_noted_and_no_damage(
    catalogue_url: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = library(tmp_path / "lib")
    folder.write("adapters/ad_lost/adapter_config.json", b"{}")
    folder.write("adapters/.ad_half.x/adapter_config.json", b"{}")
    folder.write("records/0000/.task.json.17", b"{")
    assert main(["library", "check", "--library", folder.location]) == 0
    notes = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in notes] == [
        "adapters/ad_lost", "adapters/.ad_half.x", "records/0000/.task.json.17",
    ]  # fmt: skip


@pytest.mark.parametrize("damage", ["noise", "a page", "a table"])
def test_a_damaged_file_is_made_again(
    damage: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LORASMITH_CATALOGUE", raising=False)
    folder = library(tmp_path / "lib", 50)
    whole = listed(folder, capsys)
    file = tmp_path / "lib" / "catalogue.sqlite"
    content = bytearray(file.read_bytes())
    if damage == "a table":
        with sa.create_engine(f"sqlite:///{file}").begin() as connection:
            connection.execute(sa.text("DROP TABLE scores"))
    elif damage == "a page":
        content[4096:] = b"\xff" * (len(content) - 4096)
        file.write_bytes(content)
    else:
        file.write_bytes(b"noise" * 1000)
    damaged = file.read_bytes()
    own = tmp_path / "own.sqlite"
    own.write_bytes(damaged)
    assert main(["library", "list", "--library", folder.location]) == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(file) in said and "made again" in said
    assert listed(folder, capsys) == whole and not capsys.readouterr().err
    # One that was named is somebody's: it is left alone.
    given = ["--catalogue", f"sqlite:///{own}"]
    assert main(["library", "list", "--library", folder.location, *given]) == 1
    assert capsys.readouterr().err.count("\n") == 1 and own.read_bytes() == damaged


@pytest.mark.parametrize(
    ("url", "code", "words"),
    [
        ("postgresql://me:secret@127.0.0.1:1/lora", 1, "127.0.0.1:1/lora cannot be used"),
        ("sqlite:////no/such/folder/x.sqlite", 1, "unable to open"),
        ("mysql://host/lora", 2, "mysql"),
        ("no url", 2, "URL"),
        ("postgresql://host:port/lora", 2, "URL"),
    ],
)
def test_a_catalogue_that_cannot_be_is_one_sentence(
    url: str, code: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = library(tmp_path / "lib", 1)
    assert main(["library", "list", "--library", folder.location, "--catalogue", url]) == code
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and "secret" not in said


WITHOUT = """
import importlib.util, sys
absent, found = ("sqlalchemy", "psycopg"), importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.split(".")[0] in absent else found(name, package))
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
from api.cli.main import main
for command in (["list", "--json", "--task", "task*", "--sort", "score"], ["remove", "task1"]):
    assert main(["library", *command, "--library", sys.argv[1]]) == 0
"""


def test_without_sqlalchemy_the_records_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LORASMITH_CATALOGUE", raising=False)
    folder = library(tmp_path / "lib", 4)
    wanted = listed(folder, capsys, "--task", "task*", "--sort", "score")
    out = tiny.output_of(tiny.start_python(WITHOUT, folder.location)).splitlines()
    assert [a["task"] for a in json.loads(out[0])["adapters"]] == wanted
    assert listed(folder, capsys) == ["task0", "task2", "task3"]
