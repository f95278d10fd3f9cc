"""Random changes of adapter folders, each of which verification has to notice."""

import json
import struct
from random import Random
from typing import Any

import pytest
from folders import Files, bare, sound, with_config

from library.peft.write import CONFIG_FILE, WEIGHTS_FILE
from verification.artifact import Artifact, Context
from verification.hook import Finding
from verification.run import Policy, run_hooks


@pytest.fixture(scope="module")
def ours() -> Files:
    return sound()


def checked(
    files: Files, *, target: str | None = None, policy: Policy | None = None
) -> list[Finding]:
    return run_hooks(Artifact(files), Context(target), policy or Policy()).findings


def codes(files: Files, **options: Any) -> set[str]:
    """The reasons for a refusal; empty if there is none."""
    return {f.code for f in checked(files, **options) if f.severity == "refuse"}


def with_header(files: Files, change: Any) -> Files:
    """The weights with another header: `change` takes and gives its text."""
    content = files[WEIGHTS_FILE]
    (length,) = struct.unpack("<Q", content[:8])
    header = change(content[8 : 8 + length].decode()).encode()
    whole = struct.pack("<Q", len(header)) + header + content[8 + length :]
    return {**files, WEIGHTS_FILE: whole}


def mutated_bytes(chance: Random, content: bytes) -> bytes:
    """Some bytes flipped, inserted, removed or moved; half of the time in the header."""
    place = chance.randrange(min(len(content), 1200) if chance.random() < 0.5 else len(content))
    some = chance.randbytes(chance.randint(1, 8))
    return chance.choice(
        [
            content[:place] + some + content[place + len(some) :],
            content[:place] + some + content[place:],
            content[:place] + content[place + len(some) :],
            content[place:] + content[:place],
            content[:place],
            content + some,
        ]
    )


def mutated_structure(chance: Random, ours: Files) -> Files:
    """A change of what names, shapes, offsets, sizes or config say."""
    (length,) = struct.unpack("<Q", ours[WEIGHTS_FILE][:8])
    header = json.loads(ours[WEIGHTS_FILE][8 : 8 + length])
    name = chance.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    odd: Any = chance.choice([-1, 0.5, 2**60, "4", None, True, [], 10**30])
    weights = ours[WEIGHTS_FILE]
    kind = chance.randrange(10)
    if kind == 0:
        return {**ours, WEIGHTS_FILE: weights[: chance.randrange(len(weights))]}
    if kind == 1:
        return {**ours, WEIGHTS_FILE: weights + chance.randbytes(chance.randint(1, 99))}
    if kind == 2:
        return with_config(ours, r=chance.choice([odd, 3, 8]))
    if kind == 3:
        return with_config(ours, target_modules=chance.choice([["q_proj"], "x", 7, [odd], {}]))
    if kind == 4:
        return with_config(ours, lora_alpha=chance.choice(["4", None, [], {}, 10**400]))
    if kind == 5:
        entry["shape"] = chance.choice([entry["shape"][::-1], [odd, odd], [4], [], odd])
    elif kind == 6:
        entry["data_offsets"] = chance.choice([[0, 2**40], [odd, odd], entry["data_offsets"][::-1]])
    elif kind == 7:
        entry["dtype"] = chance.choice(["F32", "I8", "I64", odd, "bf16"])
    elif kind == 8:
        header[chance.choice(["", "x", name + ".x", name.replace("_proj", "_pro")])] = header.pop(
            name
        )
    else:
        del entry[chance.choice(list(entry))]
    return with_header(ours, lambda _: json.dumps(header))


def fuzz(ours: Files, count: int) -> None:
    """Hold `count` rounds of mutations to their refusal."""
    chance = Random(count)
    for _ in range(count):
        weights = mutated_bytes(chance, ours[WEIGHTS_FILE])
        if weights != ours[WEIGHTS_FILE]:
            assert codes({**ours, WEIGHTS_FILE: weights})
            alone = checked(bare({**ours, WEIGHTS_FILE: weights}))
            assert "no-provenance" in {f.code for f in alone}
        changed = mutated_structure(chance, ours)
        assert codes(changed), changed
        assert codes(bare(changed)), changed
        config = mutated_bytes(chance, ours[CONFIG_FILE])
        codes(bare({**ours, CONFIG_FILE: config}))
        if not same_json(config, ours[CONFIG_FILE]):
            assert codes({**ours, CONFIG_FILE: config})


def same_json(one: bytes, other: bytes) -> bool:
    try:
        return json.loads(one) == json.loads(other)
    except ValueError:
        return False
