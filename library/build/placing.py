"""The ranks of a library that is to be built: those that a placement gives out of its budget."""

from dataclasses import replace

from library.layout import Layout
from library.placement.probe import Probe
from library.placement.registry import placed, placement_named
from library.store.folder import MANIFEST, LibraryFolder
from library.store.plan import Plan, has_plan

UNIFORM = "uniform"


def with_placement(plan: Plan, text: str, folder: LibraryFolder, probe: Probe) -> Plan:
    """The plan with a placement's ranks; its uniform layout is the budget.

    A library that was begun with the same placement and budget keeps its ranks, as a probe on
    another machine may see things a little otherwise.

    Args:
        text: the placement as users write it, name:key=value,...
        folder: where the library is, or will be.
    Raises UnknownName, UsageError, TaskFileError.
    """
    if text == UNIFORM:
        return plan
    plan.recipe.require_ranks_by_module()  # placing may take minutes
    placement, said = placement_named(text), {"name": text, "budget": plan.layout.digest}
    begun = folder.read_json(MANIFEST) if folder.exists(MANIFEST) else {}
    if has_plan(begun):  # where it was begun with another placement, it is refused for that
        layout = Layout.from_dict(begun["layout"])
    else:
        layout = placed(plan.layout, placement, probe)
    plan.recipe.require_fit(layout, plan.config.steps)
    return replace(plan, layout=layout, placement=said)
