"""Differences of adapters in ΔW, for the tests of merging."""

import tiny

from library.adapter import Adapter


def difference(one: Adapter, other: Adapter) -> float:
    """Largest relative Frobenius distance of any module's ΔW."""
    ours, theirs = tiny.deltas(one), tiny.deltas(other)
    return max(
        float((ours[k].double() - theirs[k].double()).norm() / theirs[k].double().norm())
        for k in ours
    )
