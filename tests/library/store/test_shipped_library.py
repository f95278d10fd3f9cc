"""The sample that ships: whole, small, permissively licensed, and what `--library` means."""

import json
from pathlib import Path

import pytest

import pretrained
from api.cli.main import main
from library.base.models import load_config, resolve_base
from library.layout import layout_of
from library.store.catalogue import check_library, open_catalogue, records
from library.store.open import open_library

FOLDER = Path(pretrained.__file__).parent / "library"


def test_it_is_whole_and_may_be_shipped() -> None:
    folder = open_library(str(FOLDER))
    found = records(folder)
    assert check_library(open_catalogue(folder)) == []
    assert len(found) >= 20
    assert len({kind for record in found for kind in record["categories"]}) >= 20
    assert {record["license_class"] for record in found} == {"permissive"}
    layout = layout_of(load_config(resolve_base()), rank=2)
    assert {record["layout_digest"] for record in found} == {layout.digest}
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 3e6


def test_commands_take_it_by_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["library", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["adapters"]
    task = listed[0]["task"]
    assert main(["library", "export", task, "--out", str(tmp_path / "adapter")]) == 0
    provenance = json.loads((tmp_path / "adapter" / "provenance.json").read_text())
    assert provenance["id"] == listed[0]["id"]
    assert main(["library", "remove", task, "--library", str(FOLDER)]) == 2
    assert "packed" in capsys.readouterr().err
