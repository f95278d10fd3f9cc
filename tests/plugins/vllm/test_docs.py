"""docs/vllm.md says the settings as they are."""

import dataclasses
import re

import tiny

from lorasmith_vllm.settings import read_settings

TEXT = (tiny.ROOT / "docs" / "vllm.md").read_text(encoding="utf-8")


def test_every_setting_stands_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(LORASMITH_\w+)` \| ([^|]*) \|", TEXT, re.MULTILINE))
    settings = read_settings({"LORASMITH_URL": "http://127.0.0.1:8100"})
    assert settings is not None
    for name, value in dataclasses.asdict(settings).items():
        told = rows.pop(
            {"url": "LORASMITH_URL", "key": "LORASMITH_API_KEY"}.get(
                name, f"LORASMITH_VLLM_{name.upper()}"
            )
        )
        if isinstance(value, int | float):
            assert told == f"{value:.0f}", name
    assert not rows
