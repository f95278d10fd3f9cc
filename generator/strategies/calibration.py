"""What measuring on train tasks set aside says of each strategy: a threshold, and curves.

`calibration.json` beside this file also says what it was calibrated on; it is written by
benchmarks/calibrate/auto.py.
"""

from bisect import bisect_left
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from library.calibration import read_calibration
from library.canonical import file_digest

FILE = Path(__file__).with_name("calibration.json")


@dataclass(frozen=True)
class StrategyCalibration:
    """Attributes:
    nearest_from: at this similarity of the nearest adapter or above, it is taken as it is.
    recovery: by strategy, points (similarity of the nearest, recovery) of a curve.
    digest: of the file.
    """

    nearest_from: float
    recovery: dict[str, list[tuple[float, float]]]
    digest: str

    def predicted(self, strategy: str, similarity: float | None) -> float | None:
        """Recovery to expect at a similarity: on the line between points, flat beyond them.

        None for a strategy without a curve, or without a similarity.
        """
        points = self.recovery.get(strategy)
        if not points or similarity is None:
            return None
        position = bisect_left(points, (similarity,))
        if position in (0, len(points)):
            return points[min(position, len(points) - 1)][1]
        (x0, y0), (x1, y1) = points[position - 1], points[position]
        return round(y0 + (y1 - y0) * (similarity - x0) / (x1 - x0), 3)


@cache
def strategy_calibration(file: Path = FILE) -> StrategyCalibration:
    """The calibration that ships. Raises CheckpointError if it is missing or damaged."""

    def build(data: dict[str, Any]) -> StrategyCalibration:
        curves = {
            strategy: [(float(x), float(y)) for x, y in points]
            for strategy, points in data["recovery"].items()
        }
        return StrategyCalibration(float(data["nearest_from"]), curves, file_digest(file))

    return read_calibration(file, build)
