"""The behaviour hook's rivals: other tasks' adapters of a library, and their mean.

And where examples come from if the request brought none: the task whose description is nearest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from index.encoders.descriptions import DescriptionEncoder, normalise
from index.merge.weighted_sum import weighted_sum
from library.base.models import BaseReference, base_layout
from library.layout import Layout
from library.store.catalogue import read_adapter
from library.store.folder import LibraryFolder
from library.store.records import Record
from library.tasks.files import Task
from verification.scores.behaviour_contenders import Contender
from verification.scores.neighbours import trained

_RIVALS = 4
_MEAN = "mean of the rivals"


def rivals_of(
    folder: LibraryFolder,
    base: BaseReference,
    *,
    description: str | None,
    identity: str | None = None,
) -> list[Contender]:
    """Adapters of other tasks, evenly spaced in a library's order of tasks, and their mean in ΔW.

    Args:
        description: adapters of a task with this description are no rivals.
        identity: nor is the adapter of this id.
    Raises:
        LayoutMismatch: the library was made for a base of other modules or shapes.
    """
    layout = _layout(folder, base)
    others = [
        record
        for record in trained(folder, layout)
        if record["id"] != identity and record["description"] != description
    ]
    rivals = [
        Contender(record["task"], read_adapter(folder, record["id"], layout))
        for record in evenly_spaced(others, _RIVALS)
    ]
    if len(rivals) < 2:
        return rivals
    mean = weighted_sum([rival.adapter for rival in rivals], [1 / len(rivals)] * len(rivals))
    return [*rivals, Contender(_MEAN, mean)]


def evenly_spaced(records: Sequence[Record], count: int) -> list[Record]:
    """At most `count` of the records, evenly spaced."""
    if len(records) <= count:
        return list(records)
    return [records[(2 * i + 1) * len(records) // (2 * count)] for i in range(count)]


@dataclass(frozen=True)
class NearestTask:
    """A task and the cosine of its description with the one asked about."""

    task: Task
    similarity: float


def nearest_task(
    description: str, tasks: Sequence[Task], encoder: DescriptionEncoder
) -> NearestTask:
    """The task whose definition is nearest to a description, the first of several."""
    query = encoder.encode([normalise(description)]).pooled[0]
    cosines = [float(encoder.encode([normalise(t.definition)]).pooled[0] @ query) for t in tasks]
    best = max(range(len(tasks)), key=cosines.__getitem__)
    return NearestTask(tasks[best], cosines[best])


def _layout(folder: LibraryFolder, base: BaseReference) -> Layout:
    plan = folder.plan()
    layout = base_layout(base, plan.layout)
    layout.require_same(plan.layout, f"base model '{base.name}'", f"the library {folder.location}")
    return plan.layout
