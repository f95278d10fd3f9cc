"""Adapters that change over the course of a generation: k of them with break points, as a folder.

Phases are those of TC-LoRA (arXiv 2510.09561), where weights follow the noise level of a diffusion
model. On disk, adapter i is the PEFT folder `phase-i` beside one `phases.json`, so that PEFT loads
each as it is (`subfolder="phase-0"`).
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from library.adapter import Adapter
from library.errors import AdapterFileError, MissingPath, UsageError
from library.files import write_folder
from library.layout import Layout
from library.peft.folder import read_adapter_file
from library.peft.read import read_peft
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, Profile, to_peft

PHASES_FILE = "phases.json"


@dataclass(frozen=True)
class PhasedAdapter:
    """k adapters of one layout, each for an interval of the phase t in [0, 1].

    Adapter i holds for t in [b_i, b_{i+1}), where b_0 is 0 and b_k is 1; the last also at 1.

    Attributes:
        adapters: k of them, for one condition (n = 1) where they are written, or for n.
        break_points: b_1 to b_{k-1}.
    Raises:
        UsageError: other than one break point between any two adapters, or they do not rise.
        LayoutMismatch: adapters of different layouts.
    """

    adapters: Sequence[Adapter]
    break_points: Sequence[float]

    def __post_init__(self) -> None:
        require_rising(self.break_points)
        if len(self.adapters) != len(self.break_points) + 1:
            raise UsageError(
                f"{len(self.break_points)} break points stand between "
                f"{len(self.break_points) + 1} adapters, not {len(self.adapters)}"
            )
        for number, adapter in enumerate(self.adapters):
            self.adapters[0].layout.require_same(adapter.layout, "phase 0", f"phase {number}")

    def at(self, t: float) -> Adapter:
        """The adapter of a phase. Raises UsageError outside [0, 1]."""
        if not 0 <= t <= 1:
            raise UsageError(f"a phase lies in [0, 1], unlike {t}")
        return self.adapters[bisect_right(self.break_points, t)]


def require_rising(break_points: Sequence[float]) -> None:
    """Raise UsageError unless break points rise strictly within (0, 1); there may be none."""
    ends = [0.0, *break_points, 1.0]
    if not all(first < second for first, second in pairwise(ends)):
        raise UsageError(
            f"break points must rise strictly within (0, 1), unlike {list(break_points)}"
        )


def write_phases(
    folder: Path,
    phased: PhasedAdapter,
    *,
    base_name: str,
    profile: Profile = "portable",
    overwrite: bool = False,
) -> None:
    """Write the folder, whole or not at all.

    Raises OutputExists, OutputError.
    """
    text = json.dumps({"break_points": [float(point) for point in phased.break_points]}, indent=1)
    files = {PHASES_FILE: f"{text}\n".encode()}
    for number, adapter in enumerate(phased.adapters):
        peft = to_peft(adapter, base_name=base_name, profile=profile)
        files[f"{phase_folder(number)}/{CONFIG_FILE}"] = peft.config_bytes
        files[f"{phase_folder(number)}/{WEIGHTS_FILE}"] = peft.weights
    write_folder(folder, files, overwrite=overwrite)


def read_phases(folder: Path, layout: Layout | None = None) -> PhasedAdapter:
    """Read a folder of phases; each as `read_peft` does, with its errors.

    Raises:
        MissingPath: no such folder, or one of its phases is missing.
        AdapterFileError: phases.json is missing or makes no sense.
    """
    if not folder.is_dir():
        raise MissingPath(f"there is no folder of phases at {folder}")
    file = folder / PHASES_FILE
    try:
        content: Any = json.loads(read_adapter_file(file))
        break_points = [float(point) for point in content["break_points"]]
        require_rising(break_points)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise AdapterFileError(f"{file} does not hold break points: {error}") from error
    numbers = range(len(break_points) + 1)
    adapters = [read_peft(folder / phase_folder(number), layout) for number in numbers]
    return PhasedAdapter(adapters, break_points)


def phase_folder(number: int) -> str:
    """The name of a phase's PEFT folder."""
    return f"phase-{number}"
