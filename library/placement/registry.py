"""The placements by name, and the layout that one gives."""

from dataclasses import fields

from library.errors import UnknownName, UsageError
from library.layout import Layout
from library.placement.allocate import allocated
from library.placement.fixed import Ends, Increasing, Strata, Uniform
from library.placement.learnt import ARDLoRA, AutoLoRA, DyLoRA, DynamicRank, Flexora
from library.placement.placement import Placement
from library.placement.probe import Probe
from library.placement.probed import Contribution, Focal, Inflection, Plop

PLACEMENTS: dict[str, type[Placement]] = {
    kind.name: kind
    for kind in (
        *(Uniform, Increasing, Ends, Strata),
        *(Plop, Inflection, Contribution, Focal),
        *(AutoLoRA, Flexora, ARDLoRA, DynamicRank, DyLoRA),
    )
}


def placement_named(text: str) -> Placement:
    """The placement that a user writes as `name` or `name:key=value,key=value`.

    Raises UnknownName; UsageError for settings that it does not have, or that are no share of 1
    (or no whole number, for a count).
    """
    name, _, settings = text.partition(":")
    if name not in PLACEMENTS:
        raise UnknownName(f"unknown placement '{name}'; known: {', '.join(PLACEMENTS)}")
    kind, values = PLACEMENTS[name], dict[str, float | int]()
    types = {field.name: type(field.default) for field in fields(kind)}
    for part in filter(None, settings.split(",")):
        key, _, value = part.partition("=")
        if key not in types:
            known = f"; it has {', '.join(types)}" if types else "; it has none"
            raise UsageError(f"placement '{name}' has no setting '{key}'{known}")
        values[key] = _number(name, key, value, types[key])
    return kind(**values)


def placed(layout: Layout, placement: Placement, probe: Probe) -> Layout:
    """The layout of a placement, which costs no more trained numbers than `layout`.

    Raises UsageError, TaskFileError.
    """
    return allocated(layout, placement.scores(layout, probe))


def _number(name: str, key: str, value: str, kind: type) -> float | int:
    try:
        number = kind(value)
    except ValueError:
        number = -1
    if number < 0 or (kind is float and number > 1) or (kind is int and number < 1):
        wanted = "from 0 to 1" if kind is float else "a whole number of at least 1"
        raise UsageError(f"placement '{name}': {key} must be {wanted}, not '{value}'")
    return number
