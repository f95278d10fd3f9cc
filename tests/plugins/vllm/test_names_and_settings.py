"""Which names are the plugin's, which integer stands for an adapter, and its settings."""

import hashlib
import tomllib
from pathlib import Path

import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from api.service.name_state import REFERENCE
from index.encoders.descriptions import MAX_CHARACTERS
from lorasmith_vllm.model_names import MAX_DESCRIPTION, Wanted, number, wanted
from lorasmith_vllm.settings import Settings, read_settings

ID = "ad_21d85876dd6d7a08ce9791853d55ef7ef7f3011d"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (f"generated/{ID}", Wanted(adapter=ID)),
        ("router@v1", Wanted(adapter="router@v1")),
        ("support-router-2@v123", Wanted(adapter="support-router-2@v123")),
        ("task:Add the numbers.", Wanted(task="Add the numbers.")),
        ("task: Add the numbers.\n", Wanted(task="Add the numbers.")),
        ("task:" + "x" * MAX_DESCRIPTION, Wanted(task="x" * MAX_DESCRIPTION)),
    ],
)
def test_names_that_always_mean_the_same(name: str, meant: Wanted) -> None:
    assert wanted(name) == meant


@pytest.mark.parametrize(
    "name",
    [
        "router", "router@current", "router@v0", "router@v01", "router@v1/..", "router@V1",
        ID, f"generated/{ID[:-1]}", f"generated/{ID.upper()}", f"generated/{ID}/", "generated/",
        f"generated/{ID}\n", "task:", "task:  ", "task:" + "x" * (MAX_DESCRIPTION + 1), "",
        "../router@v1", "-a@v1", "meta-llama/Llama-3.1-8B", "https://elsewhere.example/router@v1",
    ],
)  # fmt: skip
def test_other_names_are_not_the_plugins(name: str) -> None:
    assert wanted(name) is None


@given(st.text(max_size=80))
def test_versions_are_names_of_the_service(name: str) -> None:
    found = wanted(name)
    if found is not None and found.adapter is not None and "@" in found.adapter:
        assert REFERENCE.fullmatch(name)


def test_an_integer_is_of_the_content_and_one_that_vllm_takes() -> None:
    ids = [f"ad_{hashlib.sha256(bytes([n])).hexdigest()[:40]}" for n in range(256)]
    assert len({number(one) for one in ids}) == 256 and number(ID) == 0x21D85876DD6D7A0 + 1
    assert number("ad_" + "0" * 40) == 1 and number("ad_" + "f" * 40) == 2**60
    code = f"from lorasmith_vllm.model_names import number; print(number({ID!r}))"
    others = {tiny.output_of(tiny.start_python(code, hash_seed=seed)).strip() for seed in (1, 2)}
    assert others == {str(number(ID))}


def test_descriptions_are_as_long_as_the_service_takes_them() -> None:
    assert MAX_DESCRIPTION == MAX_CHARACTERS


def test_settings_come_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_settings({}) is None and read_settings({"LORASMITH_VLLM_TASKS": "1"}) is None
    url = {"LORASMITH_URL": "http://127.0.0.1:8100"}
    assert read_settings(url) == Settings("http://127.0.0.1:8100", None)
    monkeypatch.chdir(tmp_path)
    whole = {
        "LORASMITH_API_KEY": "lsk_a", "LORASMITH_VLLM_BASE": "b", "LORASMITH_VLLM_TASKS": "true",
        "LORASMITH_VLLM_CACHE": "here", "LORASMITH_VLLM_CACHE_BYTES": "5",
        "LORASMITH_VLLM_TIMEOUT": "6", "LORASMITH_VLLM_CONCURRENT": "7",
        "LORASMITH_VLLM_PENDING": "8", "LORASMITH_VLLM_ADAPTERS": "9", "PATH": "/bin",
    }  # fmt: skip
    read = read_settings(url | whole)
    here = tmp_path / "here"
    assert read == Settings(url["LORASMITH_URL"], "lsk_a", "b", True, here, 5, 6, 7, 8, 9)
    assert "lsk_a" not in repr(read)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LORASMITH_URL", "file:///etc"), ("LORASMITH_URL", "localhost:8000"),
        ("LORASMITH_VLLM_TASKS", "maybe"), ("LORASMITH_VLLM_CACHE_BYTES", "1GB"),
        ("LORASMITH_VLLM_PENDING", "0"), ("LORASMITH_VLLM_ADAPTERS", "-1"),
        ("LORASMITH_VLLM_PENDNG", "3"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_setting_is_said(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r"^'|^there is no setting LORASMITH_VLLM_PENDNG$"):
        read_settings({"LORASMITH_URL": "http://127.0.0.1:8100", name: value})


def test_the_distribution_registers_itself_and_has_the_services_version() -> None:
    own = tomllib.loads((tiny.ROOT / "plugins" / "vllm" / "pyproject.toml").read_text())["project"]
    main = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text())["project"]
    assert own["version"] == main["version"]
    assert own["dependencies"] == [f"lorasmith-client>={main['version']}"]
    assert own["entry-points"] == {"vllm.general_plugins": {"lorasmith": "lorasmith_vllm:register"}}
