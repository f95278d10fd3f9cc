"""What an adapter's behaviour is held against: other tasks' adapters of a library, and their mean.

And where examples come from if the request brought none: the task whose description is nearest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from index.encoders.descriptions import DescriptionEncoder, normalise
from index.merge.weighted_sum import weighted_sum
from library.base.models import BaseReference, base_layout
from library.build.plan import Plan
from library.layout import Layout
from library.store.catalogue import read_adapter
from library.store.folder import MANIFEST, LibraryFolder
from library.store.records import Record
from library.tasks.files import Task
from verification.scores.behaviour import Contender
from verification.scores.neighbours import trained

RIVALS = 4
MEAN = "mean of the rivals"


def rivals_of(
    folder: LibraryFolder,
    base: BaseReference,
    *,
    description: str | None,
    identity: str | None = None,
    count: int = RIVALS,
) -> list[Contender]:
    """Adapters of other tasks, evenly spaced in a library's order of tasks, and their mean in ΔW.

    Args:
        description: adapters of a task with this description are no rivals.
        identity: nor is the adapter of this id.
        count: how many at most.
    Raises:
        LayoutMismatch: the library was made for a base of other modules or shapes.
    """
    layout = _layout(folder, base)
    others = [
        record
        for record in trained(folder, layout)
        if record["id"] != identity and record["description"] != description
    ]
    found = [
        Contender(record["task"], read_adapter(folder, record["id"], layout))
        for record in evenly_spaced(others, count)
    ]
    if len(found) < 2:
        return found
    mean = weighted_sum([rival.adapter for rival in found], [1 / len(found)] * len(found))
    return [*found, Contender(MEAN, mean)]


def evenly_spaced(records: Sequence[Record], count: int) -> list[Record]:
    """At most `count`, evenly spaced."""
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
    wanted = encoder.encode([normalise(description)]).pooled[0]
    cosines = [float(encoder.encode([normalise(t.definition)]).pooled[0] @ wanted) for t in tasks]
    place = max(range(len(tasks)), key=cosines.__getitem__)
    return NearestTask(tasks[place], cosines[place])


def _layout(folder: LibraryFolder, base: BaseReference) -> Layout:
    plan = Plan.from_dict(folder.read_json(MANIFEST))
    ours = base_layout(base, plan.layout)
    ours.require_same(plan.layout, f"base model '{base.name}'", f"the library {folder.place}")
    return plan.layout
