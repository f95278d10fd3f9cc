"""Proofs: commitments that bind, keys of a shape, answers that are counted."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
import zk_world
from safetensors.torch import load_file
from zk_world import NONCE, World

from api.cli.main import main
from library.canonical import file_digest, json_digest
from library.errors import AdapterFileError, MissingPath, UsageError
from library.files import data_dir
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE
from verification.zk import backend, child
from verification.zk.backend import Shape, local_srs, read_srs
from verification.zk.bundle import prove_hashed, verify_hashed
from verification.zk.errors import (
    ChallengeError,
    MissingExtra,
    ProofFileError,
    ProofLimit,
    ProverError,
    TooLarge,
)
from verification.zk.integers import COLUMN_BITS, columns, hashed_row, product
from verification.zk.ledger import Ledger
from verification.zk.manifest import ModuleWeights, commit_adapter, read_weights
from verification.zk.proof import Owner
from verification.zk.verify import compare_commitment


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with zk_world.made(tmp_path_factory.mktemp("zk")) as found:
        yield found


# Commitments and keys


def test_a_commitment_is_of_the_weights_alone(world: World, tmp_path: Path) -> None:
    again = commit_adapter(world.folder, world.backend, world.srs)
    assert again == world.manifest and again.digest == world.manifest.digest
    points = [module.points for module in again.modules]
    other = commit_adapter(world.other, world.backend, world.srs)
    assert all(a != b for a, b in zip(points, (m.points for m in other.modules), strict=True))
    assert {m.vk_sha256 for m in other.modules} == {m.vk_sha256 for m in again.modules}


def test_one_weight_more_or_less_is_another_commitment(world: World, tmp_path: Path) -> None:
    adapter = tiny.adapter(zk_world.layout(), seed=1)
    key = adapter.layout.groups[0].key
    adapter.B[key][0, 1, -1, -1] += 1
    changed = commit_adapter(
        zk_world.write(tmp_path / "changed", adapter), world.backend, world.srs
    )
    differ = [
        a.points != b.points for a, b in zip(changed.modules, world.manifest.modules, strict=True)
    ]
    assert differ == [False, True]


def test_the_scale_is_inside_the_statement(world: World, tmp_path: Path) -> None:
    """alpha = 2 r, and B twice as large with alpha = r, are one ΔW and one commitment."""
    adapter = tiny.adapter(zk_world.layout(), seed=4).to(dtype=torch.bfloat16).to(dtype=torch.float)
    scaled = zk_world.write(tmp_path / "scaled", adapter, lora_alpha=4)
    folded = zk_world.write(tmp_path / "folded", adapter.scaled(2.0))
    one, two = (commit_adapter(f, world.backend, world.srs) for f in (scaled, folded))
    assert [m.points for m in one.modules] == [m.points for m in two.modules]
    assert [m.scaling for m in one.modules] == [2.0, 2.0]
    assert one.digest != two.digest


@pytest.mark.parametrize(("rank", "zero"), [(1, False), (2, True), (5, False)])
def test_any_rank_and_a_zero_adapter_can_be_proved(
    world: World, tmp_path: Path, rank: int, zero: bool
) -> None:
    adapter = tiny.adapter(zk_world.layout().with_rank(rank), seed=rank)
    if zero:
        adapter = adapter.scaled(0.0)
    manifest, bundle = world.bundle_of(zk_world.write(tmp_path / "a", adapter, dtype=torch.float16))
    report = verify_hashed(manifest, bundle, NONCE, None, world.srs, world.backend)
    assert report.verdict == "accept" and report.to_dict()["largest_difference"] == 0


def test_what_is_proved_is_what_the_adapter_does(world: World) -> None:
    """Proved outputs against float64 on the stored weights: far below 1e-5."""
    weights = read_weights(world.folder)[0]
    adapter = tiny.adapter(zk_world.layout(), seed=1).to(dtype=torch.bfloat16)
    for module, site in zip(world.bundle.modules, adapter.layout.sites, strict=True):
        assert module.name == site.name
        a, b = (factor[0].double() for factor in adapter.site(site))
        row = hashed_row(world.manifest.digest, site.name, NONCE, len(weights[site.name].a[0]))
        wanted = (torch.tensor(row).double() / 2**24) @ a.T @ b.T
        found = torch.tensor([int(value) / 2.0**72 for value in module.y], dtype=torch.float64)
        assert (found - wanted).norm() / wanted.norm() < 1e-5


def test_damaged_adapters_are_not_committed_to(world: World, tmp_path: Path) -> None:
    with pytest.raises(MissingPath):
        commit_adapter(tmp_path / "none", world.backend, world.srs)
    adapter = tiny.adapter(zk_world.layout(), seed=1)
    adapter.A[adapter.layout.groups[0].key][0, 0, 0, 0] = float("nan")
    with pytest.raises(AdapterFileError, match="NaN"):
        commit_adapter(zk_world.write(tmp_path / "nan", adapter), world.backend, world.srs)
    doubled = zk_world.write(tmp_path / "doubled", tiny.adapter(zk_world.layout(), seed=1))
    content = (doubled / WEIGHTS_FILE).read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].rstrip()
    first = json.loads(header, object_pairs_hook=list)[1]
    twice = header[:-1] + b"," + json.dumps({first[0]: dict(first[1])}).encode()[1:]
    changed = len(twice).to_bytes(8, "little") + twice + content[8 + length :]
    (doubled / WEIGHTS_FILE).write_bytes(changed)
    with pytest.raises(AdapterFileError, match="there twice"):
        commit_adapter(doubled, world.backend, world.srs)


def test_keys_are_whole_or_absent(world: World) -> None:
    folders = list((world.cache / "zk" / "keys").iterdir())
    assert folders
    for folder in folders:
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["keys.json", "pk", "settings.json", "vk"]
        record = json.loads((folder / "keys.json").read_bytes())
        assert record["vk_sha256"] == file_digest(folder / "vk")


def test_a_changed_key_in_the_cache_is_noticed(world: World) -> None:
    shape = Shape(16, 16, 2)
    vk = world.backend.keys(shape, world.srs).folder / "vk"
    content = vk.read_bytes()
    vk.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ProofFileError, match="damaged"):
        world.backend.keys(shape, world.srs)
    vk.write_bytes(content)
    world.backend.keys(shape, world.srs)


def test_an_srs_must_be_one_and_do_for_the_size(world: World, tmp_path: Path) -> None:
    content = world.srs.path.read_bytes()
    for name, wrong in (("cut", content[:-1]), ("text", b"not an SRS"), ("empty", b"")):
        (tmp_path / name).write_bytes(wrong)
        with pytest.raises(ProofFileError, match="not an SRS"):
            read_srs(tmp_path / name)
    with pytest.raises(TooLarge, match="too small"):
        world.backend.keys(Shape(100, 100, 4), world.srs)
    with pytest.raises(ProofFileError, match="give its file with --srs"):
        local_srs(7)


def test_an_ezkl_that_fails_says_so_and_goes_on(world: World) -> None:
    with pytest.raises(ProverError, match="ezkl failed in 'commit'"):
        world.backend.call("commit", folder="none", srs="none", a=[[1]], b=[[1]])
    assert world.backend.plan([Shape(16, 16, 2)])[0] == world.srs.logrows
    with backend.Backend(1) as proofs:
        others = tiny.children(b"zk/child.py")
        assert proofs.plan([Shape(4, 4, 2)])
        (process,) = tiny.children(b"zk/child.py") - others
        os.kill(process, signal.SIGKILL)
        with pytest.raises(ProverError, match="process ended"):
            proofs.plan([Shape(4, 4, 2)])
        assert proofs.plan([Shape(4, 4, 2)])  # started anew


def test_ezkl_runs_in_processes_of_its_own(world: World) -> None:
    assert "ezkl" not in sys.modules
    assert child.felt(-1) == (child.SCALAR_FIELD - 1).to_bytes(32, "little").hex()


# The limit


def test_answers_are_counted_over_manifests_and_processes(world: World, tmp_path: Path) -> None:
    folder = zk_world.write(
        tmp_path / "counted", tiny.adapter(zk_world.layout().with_rank(4), seed=9)
    )
    manifest = commit_adapter(folder, world.backend, world.srs)
    owner = Owner(folder, manifest, world.srs, world.backend)
    name, other = (module.name for module in manifest.modules)
    row = [1] * 16
    owner.answer({name: [row, row]})
    with pytest.raises(ProofLimit, match=f"gives away 1 more columns of {name}, not 2"):
        owner.answer({other: [row], name: [row, row]})
    owner.answer({name: [row], other: [row] * 3})  # a refused request counts nothing
    renamed = replace(manifest, base_model="another")
    again = Owner(folder, renamed, world.srs, world.backend)
    with pytest.raises(ProofLimit):
        again.answer({name: [row]})
    with pytest.raises(ProofLimit):
        prove_hashed(again, NONCE, None)
    spent = Ledger(read_weights(folder)[0]).spent()
    assert spent == {name: 3, other: 3}
    Ledger(read_weights(folder)[0], limit=4).charge({name: 1})
    count = max((data_dir() / "zk").glob("*.json"), key=os.path.getmtime)
    for damaged in ("{", "[1]", '{"a": -1}', '{"a": "1"}', "[" * 100_000):
        count.write_text(damaged)
        with pytest.raises(ProofFileError, match="damaged"):
            owner.answer({name: [row]})


def weights_of(rank: int, scale: int = 1) -> dict[str, ModuleWeights]:
    """One module's made-up weights; `scale` changes B alone."""
    shape = Shape(2, 2, rank)
    return {"m": ModuleWeights(shape, [[1, 2]] * rank, [[scale] * rank] * 2)}


@pytest.mark.parametrize(("rank", "limit"), [(1, 1), (2, 1), (3, 2)])
def test_the_default_limit_is_one_less_than_the_rank(rank: int, limit: int) -> None:
    ledger = Ledger(weights_of(rank, scale=100 + rank))
    with pytest.raises(ProofLimit):
        ledger.charge({"m": limit + 1})
    ledger.charge({"m": limit})


def test_another_b_is_another_count() -> None:
    Ledger(weights_of(2, scale=200)).charge({"m": 1})
    assert Ledger(weights_of(2, scale=201)).spent() == {}
    assert Ledger(weights_of(2, scale=200)).spent() == {"m": 1}


def test_owners_that_answer_at_once_lose_no_count() -> None:
    """Each has a ledger of its own, as processes have."""
    ledgers = [Ledger(weights_of(2, scale=300), limit=100) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda ledger: [ledger.charge({"m": 1}) for _ in range(10)], ledgers))
    assert ledgers[0].spent() == {"m": 80}


def two_modules(scale: int) -> dict[str, ModuleWeights]:
    return weights_of(4, scale) | {"n": weights_of(4, scale + 1)["m"]}


def test_a_refused_charge_counts_for_no_module() -> None:
    ledger = Ledger(two_modules(400), limit=3)
    ledger.charge({"m": 2})
    for request in ({"n": 1, "m": 2}, {"m": 2, "n": 1}, {"n": 4}):
        with pytest.raises(ProofLimit):
            ledger.charge(request)
        assert ledger.spent() == {"m": 2, "n": 0}
    ledger.charge({"m": 1, "n": 3})
    assert ledger.spent() == {"m": 3, "n": 3}
    ledger.charge({"m": 0})
    lower = Ledger(two_modules(400), limit=2)
    for module in "mn":
        with pytest.raises(ProofLimit):
            lower.charge({module: 1})


def test_every_module_has_the_limit_of_its_own_rank() -> None:
    ledger = Ledger(weights_of(2, 500) | {"n": weights_of(4, 500)["m"]})
    for request in ({"m": 2}, {"n": 4}):
        with pytest.raises(ProofLimit):
            ledger.charge(request)
    ledger.charge({"m": 1, "n": 3})


@pytest.mark.parametrize(
    "damaged", ["", "3", "[]", "null", '{"m": true}', '{"m": 1.0}', '{"m": -1}']
)
def test_a_damaged_count_is_no_count(damaged: str) -> None:
    ledger = Ledger(weights_of(2, 600), limit=9)
    (data_dir() / "zk").mkdir(parents=True, exist_ok=True)
    before = set((data_dir() / "zk").glob("*.json"))
    Ledger(weights_of(2, 600), limit=9).charge({"m": 0})
    (count,) = set((data_dir() / "zk").glob("*.json")) - before
    count.write_text(damaged)
    for call in (ledger.spent, lambda: ledger.charge({"m": 1})):
        with pytest.raises(ProofFileError):
            call()
    count.write_text('{"m": 0}')
    assert ledger.spent() == {"m": 0}
    count.unlink()
    assert ledger.spent() == {}


def packed(step: int, count: int, start: int, width: int) -> list[int]:
    """A row whose output holds `count` columns of ΔW from `start`, as digits to base 2^step."""
    row = [0] * width
    for digit, column in enumerate(range(start, min(start + count, width))):
        row[column] = 1 << step * digit
    return row


def unpacked(value: int, step: int, count: int) -> list[int]:
    """The digits of an output, each from −2^(step−1)."""
    found = []
    for _ in range(count):
        digit = (value + (1 << step - 1)) % (1 << step) - (1 << step - 1)
        found.append(digit)
        value = (value - digit) >> step
    return found


def test_large_inputs_cannot_read_many_columns_in_one_row(world: World, tmp_path: Path) -> None:
    """Six columns a row, 80 bits apart, would read all sixteen within the limit of three."""
    adapter = tiny.adapter(zk_world.layout().with_rank(4), seed=40)
    folder = zk_world.write(tmp_path / "packed", adapter)
    manifest = commit_adapter(folder, world.backend, world.srs)
    owner = Owner(folder, manifest, world.srs, world.backend)
    name, mine = next(iter(read_weights(folder)[0].items()))
    every = product([[int(i == j) for j in range(16)] for i in range(16)], mine.a, mine.b)
    rows = [packed(80, 6, start, 16) for start in range(0, 16, 6)]
    outputs = product(rows, mine.a, mine.b)
    read = [list(zip(*(unpacked(v, 80, 6) for v in y), strict=True)) for y in outputs]
    assert [list(column) for columns in read for column in columns][:16] == every
    for row in rows:
        with pytest.raises(ChallengeError, match="65,536"):
            owner.answer({name: [row]})
    for large in (2**40, -(2**40), 10**60):
        with pytest.raises(ChallengeError):
            owner.answer({name: [[1] * 15 + [large]]})
    assert Ledger(read_weights(folder)[0]).spent() == {}
    owner.answer({name: [[2**40 - 1] + [0] * 15]})


def test_a_row_counts_for_the_columns_that_it_can_hold(world: World, tmp_path: Path) -> None:
    """Weights of seven bits: at the bound, three columns are read in one row, and three counted."""
    adapter = tiny.adapter(zk_world.layout().with_rank(4), seed=41)
    for factors in (*adapter.A.values(), *adapter.B.values()):
        factors.copy_((factors / factors.abs().max() * 63).round() / 2**24)
    folder = zk_world.write(tmp_path / "small", adapter, dtype=torch.float16)
    manifest = commit_adapter(folder, world.backend, world.srs)
    owner = Owner(folder, manifest, world.srs, world.backend)
    weights = read_weights(folder)[0]
    name, mine = next(iter(weights.items()))
    for count in (1, 2, 3):
        assert columns(packed(COLUMN_BITS, count, 0, 16)) == count
    (y,) = owner.answer({name: [packed(COLUMN_BITS, 3, 0, 16)]})[name]
    wanted = product([[int(i == j) for j in range(16)] for i in range(3)], mine.a, mine.b)
    assert list(zip(*(unpacked(v, COLUMN_BITS, 3) for v in y), strict=True)) == [
        tuple(column) for column in wanted
    ]
    assert Ledger(weights).spent()[name] == 3
    with pytest.raises(ProofLimit, match="0 more columns"):
        owner.answer({name: [[1] * 16]})


def test_what_could_not_be_proved_is_not_counted(world: World, tmp_path: Path) -> None:
    """Weights near the largest float16: an allowed input makes sums beyond the circuit's."""
    adapter = tiny.adapter(zk_world.layout(), seed=42).scaled(1e9)
    for factors in (*adapter.A.values(), *adapter.B.values()):
        factors.clamp_(-60_000, 60_000)
    folder = zk_world.write(tmp_path / "huge", adapter, dtype=torch.float16)
    manifest = commit_adapter(folder, world.backend, world.srs)
    owner = Owner(folder, manifest, world.srs, world.backend, limit=1000)
    name = manifest.modules[0].name
    with pytest.raises(TooLarge, match="126 bits"):
        owner.answer({name: [[2**39] * 16] * 2})
    assert Ledger(read_weights(folder)[0]).spent() == {}


def test_hashed_rows_count_once(world: World, tmp_path: Path) -> None:
    """The default limit at rank 2 is one, and a chosen row of such size counts for two."""
    folder = zk_world.write(tmp_path / "hashed", tiny.adapter(zk_world.layout(), seed=43))
    manifest = commit_adapter(folder, world.backend, world.srs)
    owner = Owner(folder, manifest, world.srs, world.backend)
    name = manifest.modules[0].name
    with pytest.raises(ProofLimit, match="not 2"):
        owner.answer({name: [hashed_row(manifest.digest, name, NONCE, 16)]})
    prove_hashed(owner, NONCE, None)
    assert set(Ledger(read_weights(folder)[0]).spent().values()) == {1}


def test_an_answer_takes_known_modules_and_whole_rows(world: World) -> None:
    owner = world.owner(world.folder, world.manifest)
    name = world.manifest.modules[0].name
    for wrong in ({"lm_head": [[1] * 16]}, {name: []}, {name: [[1] * 15]}, {name: [[1] * 16, []]}):
        with pytest.raises(ChallengeError):
            owner.answer(wrong)


@pytest.mark.parametrize(
    ("nonce", "count"), [("short", 1), ("seven77", 1), ("a\nnewline", 1), (NONCE, 3)]
)
def test_a_nonce_and_a_count_that_will_not_do(world: World, nonce: str, count: int) -> None:
    with pytest.raises(UsageError):
        prove_hashed(world.owner(world.folder, world.manifest), nonce, count)


# Commands


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def test_the_commands_from_srs_to_verdict(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = zk_world.write(tmp_path / "a", tiny.adapter(zk_world.layout(), seed=20))
    srs, manifest, proof = (tmp_path / name for name in ("srs", "manifest.json", "proof.json"))
    assert run("zk", "srs", "--out", srs, "--logrows", world.srs.logrows) == 0
    pinned = ("--manifest", manifest, "--srs", srs)
    assert run("commit", adapter, "--srs", srs, "--out", manifest) == 0
    assert run("commit", adapter, "--srs", srs, "--check", manifest) == 0
    assert run("commit", world.other, "--srs", srs, "--check", manifest) == 1
    nonce = ("--nonce", "0123456789")
    assert run("prove", adapter, *pinned, *nonce, "--out", proof, "--modules", 1) == 0
    capsys.readouterr()
    assert run("verify-proof", proof, *pinned, *nonce, "--modules", 1, "--json") == 0
    out = capsys.readouterr().out
    report = json.loads(out)
    assert report["verdict"] == "accept" and len(report["proved"]) == 1
    assert len(report["says"]) == 3 and out.count("\n") == 1
    assert run("verify-proof", proof, *pinned, *nonce, "--modules", "all") == 1
    assert capsys.readouterr().out.startswith("refuse\n  module-missing: ")
    assert run("verify-proof", proof, *pinned, "--nonce", "9876543210", "--modules", 1) == 1
    assert "challenge-mismatch" in capsys.readouterr().out
    assert run("prove", adapter, *pinned, *nonce, "--out", tmp_path / "p", "--modules", 2) == 1
    assert "its limit is 1" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


WRONG = [
    (["commit", "none", "--out", "m"], 2, "no adapter folder"),
    (["commit", "none"], 2, "give --out"),
    (["commit", "none", "--out", "."], 2, "already exists"),
    (["commit", "none", "--out", "m", "--srs", "none"], 2, "no SRS file"),
    (
        ["prove", "none", "--manifest", "none", "--nonce", "12345678", "--out", "p"],
        2,
        "no manifest",
    ),
    (["prove", "none", "--nonce", "12345678", "--out", "p"], 2, "Missing option '--manifest'"),
    (["verify-proof", "none", "--manifest", "none", "--nonce", "12345678"], 2, "no manifest"),
    (["verify-proof", "none", "--manifest", "none"], 2, "Missing option '--nonce'"),
    (["zk", "srs", "--out", "s", "--logrows", "40"], 2, "logrows must be from 6 to 20"),
    (["zk", "serve", "none", "--manifest", "m", "--host", "0.0.0.0"], 2, "loopback"),
    (["zk", "ask", "nowhere", "--manifest", "none", "--text", "x"], 2, "no manifest"),
    (["zk"], 2, "Missing command"),
]


@pytest.mark.parametrize(("arguments", "code", "words"), WRONG, ids=lambda v: str(v)[:40])
def test_what_is_wrong_is_said_in_one_sentence(
    arguments: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == code
    assert words in tiny.one_sentence(capsys.readouterr())
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_one_sentence_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra):
        backend.Backend()
    assert main(["zk", "srs", "--out", str(tmp_path / "s")]) == 1
    error = capsys.readouterr().err
    assert "pip install 'lorasmith[zk]'" in error and error.count("\n") == 1


def test_commands_show_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    zk = (["zk", "srs"], ["zk", "serve"], ["zk", "ask"])
    for command in (["commit"], ["prove"], ["verify-proof"], *zk):
        assert main([*command, "--help"]) == 0
        assert "Example: lorasmith" in " ".join(capsys.readouterr().out.split())


def test_a_buyer_with_the_weights_can_compare(world: World) -> None:
    assert compare_commitment(world.folder, world.manifest, world.srs, world.backend) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_manifest_describes_the_adapter_and_every_module(
    world: World, tmp_path: Path, dtype: torch.dtype
) -> None:
    adapter = tiny.adapter(zk_world.layout(), seed=50)
    names = [site.name for site in adapter.layout.sites]
    config = {"lora_alpha": 8, "alpha_pattern": {names[1]: 4}}
    folder = zk_world.write(tmp_path / "a", adapter, dtype=dtype, **config)
    shares: list[float] = []
    manifest = commit_adapter(folder, world.backend, world.srs, shares.append)
    files = (manifest.adapter_sha256, manifest.config_sha256)
    assert files == tuple(file_digest(folder / name) for name in (WEIGHTS_FILE, CONFIG_FILE))
    assert (manifest.protocol, manifest.base_model) == ("lorasmith-zk-1", "tiny")
    assert (manifest.srs_sha256, manifest.srs_logrows) == (world.srs.sha256, world.srs.logrows)
    assert shares[-1] == 1 and shares == sorted(shares)
    vk = world.backend.keys(Shape(16, 16, 2), world.srs).vk_sha256
    stored = load_file(folder / WEIGHTS_FILE)
    for module, name, alpha in zip(manifest.modules, names, (8.0, 4.0), strict=True):
        assert (module.name, module.alpha, module.scaling) == (name, alpha, alpha / 2)
        assert (module.in_features, module.out_features, module.rank) == (16, 16, 2)
        assert (module.dtype, module.vk_sha256) == (str(dtype).removeprefix("torch."), vk)
        assert module.binds and manifest.by_name[name] is module
        weights = read_weights(folder)[0][name]
        differences = []
        for rows, factor, scale in ((weights.a, "A", 1.0), (weights.b, "B", alpha / 2)):
            exact = stored[f"base_model.model.{name}.lora_{factor}.weight"].double() * scale
            error = torch.tensor(rows).double() / 2**24 - exact
            differences.append(float(error.abs().max()))
        assert module.largest_difference == max(differences) <= 2**-25
    largest = max(module.largest_difference for module in manifest.modules)
    assert manifest.largest_difference == largest
    data = json.loads(manifest.to_bytes())
    assert manifest.digest == json_digest(data)
