"""Libraries whose ranks a placement chose: built, gone on with, added to."""

from pathlib import Path
from typing import Any

import pytest
from building import built, command, content, tasks  # noqa: F401  (fixtures)

from api.cli.main import main
from library.build import placing
from library.store.catalogue import read_adapter, records
from library.store.folder import MANIFEST, LibraryFolder

INCREASING = ("--placement", "increasing:first=0")  # of two layers the first gets nothing


@pytest.fixture(scope="module")
def placed(tasks: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("placed") / "library"
    assert main(command(tasks, tiny_base, str(out), *INCREASING)) == 0
    return out


def test_its_adapters_have_the_ranks_of_the_placement(placed: Path) -> None:
    folder = LibraryFolder(str(placed))
    plan = folder.plan()
    assert {site.depth for site in plan.layout.sites} == {1} and plan.layout.rank == 16
    assert plan.placement["name"] == "increasing:first=0"
    for record in records(folder):
        adapter = read_adapter(folder, record["id"], plan.layout)
        assert adapter.layout.ranks == plan.layout.ranks
        assert all(b.abs().sum() > 0 for b in adapter.B.values())


def test_what_was_begun_goes_on_with_its_ranks(
    placed: Path,
    tasks: Path,
    tiny_base: Path,
) -> None:
    before = (placed / MANIFEST).read_bytes(), content(placed)
    assert main(command(tasks, tiny_base, str(placed), "--resume", *INCREASING)) == 0
    assert ((placed / MANIFEST).read_bytes(), content(placed)) == before
    assert main(command(tasks, tiny_base, str(placed), "--resume")) == 1  # of another layout
    for others in (["--placement", "ends"], [*INCREASING, "--rank", "4"]):
        assert main(command(tasks, tiny_base, str(placed), "--resume", *others)) == 2
    assert ((placed / MANIFEST).read_bytes(), content(placed)) == before


def test_a_taken_place_is_refused_before_a_placement_looks(
    placed: Path,
    tasks: Path,
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delattr(placing, "placed")
    assert main(command(tasks, tiny_base, str(placed), "--placement", "dylora")) == 2
    assert "already exists; use --resume" in capsys.readouterr().err
    other = ["--resume", "--placement", "dylora"]
    assert main(command(tasks, tiny_base, str(placed), *other)) == 2
    assert "begun with other settings: placement" in capsys.readouterr().err


def test_a_uniform_plan_does_not_speak_of_placements(built: Path) -> None:
    folder = LibraryFolder(str(built))
    assert "placement" not in folder.read_json(MANIFEST) and folder.plan().placement == {}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--placement", "nowhere"], "unknown placement 'nowhere'"),
        (["--placement", "ends:first=3"], "first must be from 0 to 1"),
        (["--placement", "increasing", "--recipe", "dora"], "one rank for all modules"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    more: list[str],
    said: str,
    tasks: Path,
    tiny_base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(command(tasks, tiny_base, str(tmp_path / "out"), *more)) in (1, 2)
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_recipe_of_one_rank_is_refused_before_the_base_is_probed(
    tasks: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: list[Any] = []
    monkeypatch.setattr("library.build.placing.placed", lambda *asked: probed.append(asked))
    more = ("--placement", "dylora", "--recipe", "dora")
    assert main(command(tasks, tiny_base, str(tmp_path / "out"), *more)) in (1, 2)
    assert not probed
