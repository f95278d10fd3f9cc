"""Banks: what is read is what stands there, and faults are said."""

import json
from pathlib import Path
from typing import Any

import pytest

from library.errors import MissingPath
from library.tasks.files import MalformedTask
from training.synthetic.banks import by_domain, plain, read_topics


def line(topic: str = "rain", domain: str = "weather", **changes: Any) -> str:
    data = {
        "topic": topic,
        "domain": domain,
        "names": [topic, f"{topic} talk"],
        "description": f"it is about {topic}",
        "utterances": [f"{topic} {i}" for i in range(20)],
    }
    return json.dumps(data | changes)


def bank(folder: Path, *lines: str, name: str = "a") -> Path:
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_topics_come_sorted_from_all_files_and_fall_into_domains(tmp_path: Path) -> None:
    bank(tmp_path, line("wind"), line("cake", "food"))
    bank(tmp_path, line("rain", utterances=[f"drip\u2028{i}" for i in range(21)]), name="b")
    topics = read_topics(tmp_path)
    assert [(t.domain, t.topic) for t in topics] == [
        ("food", "cake"), ("weather", "rain"), ("weather", "wind"),
    ]  # fmt: skip
    assert len(topics[1].utterances) == 21 and topics[0].names == ("cake", "cake talk")
    assert {d: len(some) for d, some in by_domain(topics).items()} == {"food": 1, "weather": 2}


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["{"], "line 1: this is not JSON"),
        (["[]"], "has the fields"),
        ([line(mood="good")], "and no others"),
        ([line(names="rain")], "must be lists"),
        ([line(names=["rain"])], "two names"),
        ([line(description=" wet")], "begin or end with spaces: ' wet'"),
        ([line(names=["rain", ""])], "must not be empty"),
        ([line(utterances=["a"] * 20)], "all of them different"),
        ([line(utterances=[f"a{i}" for i in range(19)])], "20 utterances"),
        ([line(utterances=[*(f"a {i}" for i in range(20)), "A  1"])], "all of them different"),
        ([line(), line("Rain")], "line 2: the topic 'Rain' is there already"),
        ([line(), line("fog", utterances=["RAIN  3", *map(str, range(19))])], "of 'rain', too"),
    ],
)
def test_faults(tmp_path: Path, lines: list[str], fault: str) -> None:
    with pytest.raises(MalformedTask, match=fault):
        read_topics(bank(tmp_path, *lines))


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(MissingPath):
        read_topics(tmp_path / "none")


def test_the_banks_that_ship_are_sound() -> None:
    topics = read_topics()
    assert len(topics) >= 20 and all(len(some) > 1 for some in by_domain(topics).values())
    assert plain(" A \n b") == "a b"
