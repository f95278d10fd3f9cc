"""The benchmark of gates on a tiny base: which rows it writes, and what may act in them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality import routing

SYSTEMS = ["base", "oracle", "uniform", "one-lora", "arrow", "milora", "smora"]


@pytest.mark.filterwarnings("ignore")
def test_each_system_has_its_rows(
    small_library: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "routing.json"
    command = ["routing", "--tasks", str(small_library / "tasks"), "--base", str(tiny_base)]
    command += ["--library", str(small_library / "lib"), "--rows", "3", "--steps", "2"]
    command += ["--one-lora-steps", "2", "--max-new-tokens", "4", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*command, "--systems", *SYSTEMS])
    routing.main()
    report = json.loads(out.read_text())
    rows: dict[Any, Any] = {
        (row["system"], row["mode"], row["in_domain"]): row for row in report["results"]
    }
    alone = {"base", "oracle", "one-lora"}  # that nothing can be left out of
    wanted = {(s, m, d) for s in SYSTEMS for m in ("bare", "prompted") for d in (True, False)}
    assert set(rows) == {key for key in wanted if key[2] or key[0] not in alone}
    assert report["tasks"] == ["poem", "sub", "sum"]
    whole = rows["oracle", "bare", True]["active_numbers"]
    active = {key[::2]: row["active_numbers"] for key, row in rows.items() if key[1] == "bare"}
    assert active["base", True] == 0 and active["one-lora", True] == 3 * whole
    assert (active["uniform", True], active["uniform", False]) == (3 * whole, 2 * whole)
    assert (active["arrow", True], active["arrow", False]) == (3 * whole, 2 * whole)
    assert active["milora", True] == 2 * whole == active["smora", True]  # 8 of 12 ranks of 4
    for row in rows.values():
        assert len(row["by_task"]) == 3 and row["ms_a_token"] > 0
    assert rows["milora", "bare", True]["gate_numbers"] > 0
