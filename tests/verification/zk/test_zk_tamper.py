"""Whatever is changed, a proof is refused, with a code that says why."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
import tiny
import zk_world
from zk_world import NONCE, World, relabelled

from library.canonical import json_digest
from library.errors import MissingPath, UsageError
from verification.zk.backend import Srs, new_srs, read_srs
from verification.zk.bundle import (
    Bundle,
    integers,
    prove_hashed,
    read_bundle,
    require_count,
    require_nonce,
    selected,
    verify_hashed,
)
from verification.zk.child import SCALAR_FIELD, felt
from verification.zk.errors import ProofFileError
from verification.zk.integers import fold, folding, integers_digest, product, tag
from verification.zk.manifest import Manifest, commit_adapter, read_weights, read_zk_manifest
from verification.zk.proof import Owner, Statement
from verification.zk.verify import compare_commitment, verify_proofs

Tampered = tuple[Manifest, Bundle]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with zk_world.made(tmp_path_factory.mktemp("zk")) as found:
        yield found


@pytest.fixture(scope="module")
def foreign_srs(world: World, tmp_path_factory: pytest.TempPathFactory) -> Srs:
    """An SRS of the same size with another secret."""
    path = tmp_path_factory.mktemp("srs") / "foreign.srs"
    path.write_bytes(new_srs(world.backend, world.srs.logrows))
    return read_srs(path)


def codes(world: World, manifest: Manifest, bundle: Bundle, srs: Srs | None = None) -> set[str]:
    report = verify_hashed(manifest, bundle, NONCE, None, srs or world.srs, world.backend)
    assert (report.verdict == "refuse") == any(f.severity == "refuse" for f in report.findings)
    assert len(report.to_dict()["says"]) == 3 and report.rows == 1
    return {finding.code for finding in report.findings}


def first(bundle: Bundle, **changes: object) -> Bundle:
    """The bundle with its first module's entry changed."""
    return replace(bundle, modules=[replace(bundle.modules[0], **changes), *bundle.modules[1:]])


def described(manifest: Manifest, **changes: object) -> Manifest:
    """The manifest with its first module's entry changed."""
    return replace(
        manifest, modules=[replace(manifest.modules[0], **changes), *manifest.modules[1:]]
    )


def flipped(proof: str, position: int) -> str:
    content = bytearray.fromhex(proof)
    content[position] ^= 1
    return content.hex()


def test_an_honest_proof_is_accepted(world: World) -> None:
    report = verify_hashed(world.manifest, world.bundle, NONCE, None, world.srs, world.backend)
    assert report.verdict == "accept"
    assert report.proved == [module.name for module in world.manifest.modules]


# What an owner could do


def others_proof(world: World) -> Tampered:
    _, theirs = world.bundle_of(world.other)
    return world.manifest, relabelled(theirs, world.manifest)


def others_proof_with_our_commitments(world: World) -> Tampered:
    manifest, bundle = others_proof(world)
    modules = []
    for module, committed in zip(bundle.modules, manifest.modules, strict=True):
        points = "".join(committed.points)
        modules.append(replace(module, proof=points + module.proof[len(points) :]))
    return manifest, replace(bundle, modules=modules)


def changed_weight(world: World) -> Tampered:
    """An owner one of whose weights is off by 2⁻²⁴, honest otherwise."""
    weights, described = read_weights(world.folder)
    for module in weights.values():
        row = module.a[-1]
        smallest = min(range(len(row)), key=lambda position: abs(row[position]))
        row[smallest] += 1
    with patch("verification.zk.proof.read_weights", lambda _: (weights, described)):
        owner = world.owner(world.folder, world.manifest)
    return world.manifest, prove_hashed(owner, NONCE, None)


def wrong_output(world: World) -> Tampered:
    y = integers(world.bundle.modules[0].y)
    y[-1] += 1
    return world.manifest, first(world.bundle, y=[str(value) for value in y])


def output_dropped(world: World) -> Tampered:
    return world.manifest, first(world.bundle, y=world.bundle.modules[0].y[:-1])


def output_added(world: World) -> Tampered:
    return world.manifest, first(world.bundle, y=[*world.bundle.modules[0].y, "0"])


def flipped_first_byte(world: World) -> Tampered:
    return world.manifest, first(world.bundle, proof=flipped(world.bundle.modules[0].proof, 0))


def flipped_middle_byte(world: World) -> Tampered:
    proof = world.bundle.modules[0].proof
    return world.manifest, first(world.bundle, proof=flipped(proof, len(proof) // 4))


def flipped_last_byte(world: World) -> Tampered:
    return world.manifest, first(world.bundle, proof=flipped(world.bundle.modules[0].proof, -1))


def truncated(world: World) -> Tampered:
    return world.manifest, first(world.bundle, proof=world.bundle.modules[0].proof[:-2])


def longer(world: World) -> Tampered:
    """ezkl itself accepts bytes after a proof."""
    return world.manifest, first(world.bundle, proof=world.bundle.modules[0].proof + "00" * 32)


def replayed_module(world: World) -> Tampered:
    """One module's output and proof stand in for another's."""
    one, two = world.bundle.modules
    return world.manifest, replace(world.bundle, modules=[one, replace(one, name=two.name)])


def module_left_out(world: World) -> Tampered:
    return world.manifest, replace(world.bundle, modules=world.bundle.modules[:1])


def module_unheard_of(world: World) -> Tampered:
    extra = replace(world.bundle.modules[0], name="lm_head")
    return world.manifest, replace(world.bundle, modules=[*world.bundle.modules, extra])


def another_nonce(world: World) -> Tampered:
    manifest, bundle = world.bundle_of(world.folder, "another nonce")
    return manifest, bundle


def another_nonce_relabelled(world: World) -> Tampered:
    manifest, bundle = another_nonce(world)
    return manifest, replace(bundle, nonce=NONCE)


def another_manifest(world: World) -> Tampered:
    """The same weights, committed to for another base: the commitments are equal."""
    return replace(world.manifest, base_model="another"), world.bundle


def another_manifest_relabelled(world: World) -> Tampered:
    manifest, bundle = another_manifest(world)
    return manifest, relabelled(bundle, manifest)


def wrong_commitment(world: World) -> Tampered:
    """A manifest with another commitment, and a proof that names it."""
    points = world.manifest.modules[0].points
    manifest = described(world.manifest, points=[flipped(points[0], -1), *points[1:]])
    return manifest, relabelled(world.bundle, manifest)


def hollow(world: World) -> Tampered:
    """A manifest whose commitments say nothing fits every adapter: here another's honest proofs."""
    _, theirs = world.bundle_of(world.other)
    points = [""] * len(world.manifest.modules[0].points)
    modules = [replace(module, points=points) for module in world.manifest.modules]
    manifest = replace(world.manifest, modules=modules)
    return manifest, relabelled(theirs, manifest)


def pointless(world: World) -> Tampered:
    manifest = described(world.manifest, points=[])
    return manifest, relabelled(world.bundle, manifest)


def shifted_points(world: World) -> Tampered:
    """All digits are there, but one point is shorter and the next one longer."""
    one, two, *others = world.manifest.modules[0].points
    manifest = described(world.manifest, points=[one[:-2], one[-2:] + two, *others])
    return manifest, relabelled(world.bundle, manifest)


def one_point_for_all(world: World) -> Tampered:
    """All digits are there, in the first point."""
    points = world.manifest.modules[0].points
    joined = ["".join(points), *([""] * (len(points) - 1))]
    manifest = described(world.manifest, points=joined)
    return manifest, relabelled(world.bundle, manifest)


def upper_case_points(world: World) -> Tampered:
    points = [point.upper() for point in world.manifest.modules[0].points]
    manifest = described(world.manifest, points=points)
    bundle = relabelled(world.bundle, manifest)
    digits = len("".join(points))
    proof = bundle.modules[0].proof
    return manifest, first(bundle, proof=proof[:digits].upper() + proof[digits:])


def wrong_key(world: World) -> Tampered:
    manifest = described(world.manifest, vk_sha256="0" * 64)
    return manifest, relabelled(world.bundle, manifest)


def wrong_alpha(world: World) -> Tampered:
    """Proofs of the adapter at twice its strength."""
    folder = world.cache.parent / "louder"
    if not folder.exists():
        zk_world.write(folder, tiny.adapter(zk_world.layout(), seed=1), lora_alpha=4)
    _, bundle = world.bundle_of(folder)
    return world.manifest, relabelled(bundle, world.manifest)


def wrong_rank(world: World) -> Tampered:
    """Proofs of the adapter's best approximation of rank 1."""
    folder = world.cache.parent / "thinner"
    if not folder.exists():
        zk_world.write(folder, tiny.adapter(zk_world.layout(), seed=1).with_rank(1))
    _, bundle = world.bundle_of(folder)
    return world.manifest, relabelled(bundle, world.manifest)


def another_version(world: World) -> Tampered:
    manifest = replace(world.manifest, backend_version="0.0")
    return manifest, relabelled(world.bundle, manifest)


TABLE: list[tuple[Callable[[World], Tampered], str]] = [
    (others_proof, "commitment-mismatch"),
    (others_proof_with_our_commitments, "proof-invalid"),
    (changed_weight, "commitment-mismatch"),
    (wrong_output, "proof-invalid"),
    (output_dropped, "instances-mismatch"),
    (output_added, "instances-mismatch"),
    (flipped_first_byte, "commitment-mismatch"),
    (flipped_middle_byte, "proof-invalid"),
    (flipped_last_byte, "proof-invalid"),
    (truncated, "proof-malformed"),
    (longer, "proof-malformed"),
    (replayed_module, "commitment-mismatch"),
    (module_left_out, "module-missing"),
    (module_unheard_of, "module-unknown"),
    (another_nonce, "challenge-mismatch"),
    (another_nonce_relabelled, "proof-invalid"),
    (another_manifest, "manifest-mismatch"),
    (another_manifest_relabelled, "proof-invalid"),
    (wrong_commitment, "commitment-mismatch"),
    (hollow, "commitment-mismatch"),
    (pointless, "commitment-mismatch"),
    (shifted_points, "commitment-mismatch"),
    (one_point_for_all, "commitment-mismatch"),
    (upper_case_points, "proof-malformed"),
    (wrong_key, "key-mismatch"),
    (wrong_alpha, "commitment-mismatch"),
    (wrong_rank, "proof-malformed"),
    (another_version, "backend-mismatch"),
]


@pytest.mark.parametrize(("tamper", "code"), TABLE, ids=lambda v: getattr(v, "__name__", v))
def test_tampering_is_refused(world: World, tamper: Callable[[World], Tampered], code: str) -> None:
    found = codes(world, *tamper(world))
    assert code in found and found <= {code, "proof-invalid"}


@pytest.mark.parametrize(
    "tamper", [hollow, pointless, shifted_points, one_point_for_all, upper_case_points]
)
def test_such_a_manifest_is_not_even_read(
    world: World, tamper: Callable[[World], Tampered]
) -> None:
    with pytest.raises(ProofFileError, match="not a point"):
        Manifest.from_bytes(tamper(world)[0].to_bytes(), "it")


def test_an_equal_module_cannot_stand_in_for_another(world: World, tmp_path: Path) -> None:
    """Two modules with the same weights have the same commitment; a proof is still one's own."""
    twins = tiny.adapter(zk_world.layout(), seed=3)
    for factors in (*twins.A.values(), *twins.B.values()):
        factors[:, 1] = factors[:, 0]
    manifest, bundle = world.bundle_of(zk_world.write(tmp_path / "twins", twins))
    one, two = manifest.modules
    assert one.points == two.points
    replayed = replace(bundle.modules[0], name=two.name)
    assert codes(world, manifest, replace(bundle, modules=[bundle.modules[0], replayed])) == {
        "proof-invalid"
    }


# The SRS


def test_another_srs_is_refused(world: World, foreign_srs: Srs) -> None:
    assert codes(world, world.manifest, world.bundle, foreign_srs) == {"srs-mismatch"}
    named = replace(world.manifest, srs_sha256=foreign_srs.sha256)
    bundle = relabelled(world.bundle, named)
    assert codes(world, named, bundle, foreign_srs) == {"key-mismatch"}
    ours = commit_adapter(world.folder, world.backend, foreign_srs)
    assert codes(world, ours, relabelled(world.bundle, ours), foreign_srs) == {
        "commitment-mismatch"
    }
    modules = [
        replace(m, proof="".join(c.points) + m.proof[len("".join(c.points)) :])
        for m, c in zip(world.bundle.modules, ours.modules, strict=True)
    ]
    swapped = replace(relabelled(world.bundle, ours), modules=modules)
    assert codes(world, ours, swapped, foreign_srs) == {"proof-invalid"}


def test_owners_need_the_srs_and_the_adapter_of_their_manifest(
    world: World, foreign_srs: Srs
) -> None:
    with pytest.raises(ProofFileError, match="another SRS"):
        Owner(world.folder, world.manifest, foreign_srs, world.backend)
    with pytest.raises(ProofFileError, match="not that of the adapter"):
        Owner(world.other, world.manifest, world.srs, world.backend)


# Files


def test_a_proof_holds_nothing_but_outputs_and_proofs(world: World) -> None:
    """No inputs in any form, so none can be prettified: more members, or fewer, are an error."""
    data = json.loads(world.bundle.to_bytes())
    assert Bundle.from_bytes(world.bundle.to_bytes(), "it") == world.bundle
    module = data["modules"][0]
    wrong = [
        {**data, "pretty_public_inputs": {"outputs": ["9999"]}},
        {**data, "modules": [{**module, "pretty_public_inputs": {}}]},
        {**data, "modules": [{**module, "instances": module["y"]}]},
        {**data, "modules": [{**module, "y": [*module["y"][:-1], "1e3"]}]},
        {**data, "modules": [{**module, "y": [*module["y"][:-1], str(SCALAR_FIELD)]}]},
        {**data, "modules": [module, module]},
        {**data, "modules": [{**module, "proof": 1}]},
        {**data, "protocol": "another"},
        {**data, "manifest": data["manifest"][:-1] + "G"},
        {"modules": []},
        [],
    ]
    for content in wrong:
        with pytest.raises(ProofFileError, match="not a proof"):
            Bundle.from_bytes(json.dumps(content).encode(), "it")


def test_a_manifest_is_read_strictly(world: World) -> None:
    data = json.loads(world.manifest.to_bytes())
    assert Manifest.from_bytes(world.manifest.to_bytes(), "it") == world.manifest
    module = data["modules"][0]
    wrong = [
        {**data, "note": ""},
        {**data, "modules": []},
        {**data, "modules": [module, module]},
        {**data, "modules": [{**module, "rank": -1}]},
        {**data, "modules": [{**module, "rank": True}]},
        {**data, "modules": [{**module, "points": "aa"}]},
        {**data, "modules": [{**module, "vk_sha256": ""}]},
        {**data, "modules": [{**module, "points": [p + "\n" for p in module["points"]]}]},
        {**data, "adapter_sha256": data["adapter_sha256"].upper()},
        {**data, "config_sha256": data["config_sha256"][1:]},
        {**data, "srs_sha256": data["srs_sha256"] + "0"},
        {**data, "srs_logrows": 2**60},
        [data],
    ]
    for content in wrong:
        with pytest.raises(ProofFileError, match="not a manifest"):
            Manifest.from_bytes(json.dumps(content).encode(), "it")


# Owners and buyers who hold the weights


def test_the_commitments_of_another_adapter_are_named(world: World, tmp_path: Path) -> None:
    def found(folder: Path, manifest: Manifest = world.manifest) -> list[str]:
        return [f.code for f in compare_commitment(folder, manifest, world.srs, world.backend)]

    same = tiny.adapter(zk_world.layout(), seed=1)
    assert found(world.folder) == []
    assert found(world.other) == ["commitment-mismatch"]
    louder = zk_world.write(tmp_path / "louder", same, lora_alpha=4)
    assert found(louder) == ["scaling-mismatch"]
    assert found(zk_world.write(tmp_path / "thin", same.with_rank(1))) == ["shape-mismatch"]
    assert found(world.folder, described(world.manifest, alpha=4.0)) == ["scaling-mismatch"]
    assert found(world.folder, described(world.manifest, rank=3)) == ["shape-mismatch"]
    assert found(world.folder, described(world.manifest, vk_sha256="0")) == ["key-mismatch"]
    fewer = replace(world.manifest, modules=world.manifest.modules[:1])
    assert found(world.folder, fewer) == ["module-mismatch"]
    renamed = zk_world.write(tmp_path / "renamed", same, base_model_name_or_path="other")
    assert found(renamed) == ["file-mismatch"]


# Several rows


@pytest.fixture(scope="module")
def rows(world: World) -> tuple[Statement, str]:
    """An honest statement of three rows, and its proof."""
    name = world.manifest.modules[0].name
    weights = read_weights(world.folder)[0][name]
    x = [[(7 * i + 11 * j) % 97 - 48 << 20 for i in range(16)] for j in range(3)]
    y = product(x, weights.a, weights.b)
    statement = Statement(world.manifest.digest, name, NONCE, "a seed drawn later", x, y)
    return statement, world.owner(world.folder, world.manifest).prove([statement])[0]


def outcome(world: World, statement: Statement, proof: str) -> str:
    report = verify_proofs(world.manifest, [statement], [proof], world.srs, world.backend)
    return report.findings[0].code


def test_folded_rows(world: World, rows: tuple[Statement, str]) -> None:
    statement, proof = rows
    assert outcome(world, statement, proof) == "proved"
    for position in range(3):
        for part in ("x", "y"):
            changed = [list(row) for row in getattr(statement, part)]
            changed[position][5] += 1
            assert outcome(world, replace(statement, **{part: changed}), proof) == "proof-invalid"
    assert outcome(world, replace(statement, fold_seed="another seed"), proof) == "proof-invalid"
    assert outcome(world, replace(statement, nonce="another nonce"), proof) == "proof-invalid"
    fewer = replace(statement, x=statement.x[:2], y=statement.y[:2])
    assert outcome(world, fewer, proof) == "proof-invalid"
    assert outcome(world, replace(statement, y=statement.y[:2]), proof) == "instances-mismatch"
    assert outcome(world, replace(statement, manifest="other"), proof) == "manifest-mismatch"
    wrapped = [[value + SCALAR_FIELD for value in row] for row in statement.y]
    assert outcome(world, replace(statement, y=wrapped), proof) == "instances-mismatch"


def test_several_rows_take_a_seed_drawn_after_the_answers(rows: tuple[Statement, str]) -> None:
    with pytest.raises(UsageError, match="after the answers"):
        replace(rows[0], fold_seed="").instances()


def test_nothing_proved_is_nothing_accepted(world: World) -> None:
    assert verify_proofs(world.manifest, [], [], world.srs, world.backend).verdict == "refuse"


@pytest.mark.parametrize(
    "change",
    [
        {"manifest": "m"},
        {"module": "n"},
        {"nonce": "o"},
        {"fold_seed": "s"},
        {"x": [[2]]},
        {"y": [[2]]},
    ],
)
def test_a_statement_s_digest_covers_every_member(change: dict[str, object]) -> None:
    """Of each member alone: hashed inputs and commitments would hide one that is left out."""
    statement = Statement("manifest", "module", NONCE, "seed", [[1]], [[1]])
    assert replace(statement, **change).digest != statement.digest


def test_two_rows_take_a_seed_too(rows: tuple[Statement, str]) -> None:
    statement = rows[0]
    with pytest.raises(UsageError, match="after the answers"):
        replace(statement, fold_seed="", x=statement.x[:2], y=statement.y[:2]).instances()


@pytest.mark.parametrize("member", ["adapter_sha256", "config_sha256"])
def test_each_file_of_an_owner_s_adapter_must_be_the_manifest_s(world: World, member: str) -> None:
    manifest = replace(world.manifest, **{member: "0" * 64})
    with pytest.raises(ProofFileError, match="not that of the adapter"):
        Owner(world.folder, manifest, world.srs, world.backend)


def test_a_tag_is_an_input_before_the_outputs_and_again_doubled(
    rows: tuple[Statement, str],
) -> None:
    statement = rows[0]
    single = replace(statement, fold_seed="", x=statement.x[:1], y=statement.y[:1])
    marks = tag(single.digest)
    expected = [*single.x[0], *marks, *single.y[0], *(2 * mark for mark in marks)]
    assert single.instances() == [felt(value) for value in expected]


def test_a_statement_s_digest_is_that_of_its_parts(rows: tuple[Statement, str]) -> None:
    statement = rows[0]
    parts = ["lorasmith-zk-1", statement.manifest, statement.module, NONCE, "a seed drawn later"]
    parts += [integers_digest(statement.x), integers_digest(statement.y)]
    assert statement.digest == json_digest(parts)
    coefficients = folding(statement.digest, 3)
    assert statement.folded == (fold(statement.x, coefficients), fold(statement.y, coefficients))


@pytest.mark.parametrize("length", [0, 7, 8, 200, 201])
def test_nonces_of_any_other_length_are_refused(world: World, length: int) -> None:
    nonce = "n" * length
    for call in (lambda: require_nonce(nonce), lambda: selected(world.manifest, nonce, None)):
        if 8 <= length <= 200:
            call()
        else:
            with pytest.raises(UsageError):
                call()


@pytest.mark.parametrize(("count", "allowed"), [(0, False), (1, True), (2, True), (3, False)])
def test_as_many_modules_are_proved_as_there_are(world: World, count: int, allowed: bool) -> None:
    require_count(2, None)
    if allowed:
        require_count(2, count)
        assert len(selected(world.manifest, NONCE, count)) == count
        return
    for call in (
        lambda: require_count(2, count), lambda: selected(world.manifest, NONCE, count),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            call()


@pytest.mark.parametrize(
    ("text", "number"),
    [("0", 0), ("-7", -7), ("9" * 40, 10**40 - 1), ("-" + "9" * 40, 1 - 10**40), ("9" * 42, None),
     ("-" + "9" * 41, None), ("", None), ("-", None), ("--1", None), ("1.0", None), ("+1", None),
     (" 1", None)],
)  # fmt: skip
def test_outputs_are_decimal_integers_of_forty_digits(text: str, number: int | None) -> None:
    if number is not None:
        assert integers([text, "1"]) == [number, 1]
        return
    with pytest.raises(ValueError):
        integers(["1", text])


def test_files_that_are_not_there_are_missing(tmp_path: Path) -> None:
    for read in (read_bundle, read_zk_manifest):
        for path in (tmp_path / "none", tmp_path):
            with pytest.raises(MissingPath):
                read(path)
