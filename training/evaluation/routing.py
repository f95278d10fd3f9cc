"""Methods that choose adapters for each row by itself, from what the row's input is like."""

from dataclasses import dataclass

from index.encoders.descriptions import DescriptionEncoder
from index.routing import Router, embed_inputs
from index.search.retriever import Retriever
from library.adapter import Adapter
from library.errors import UsageError
from library.tasks.files import Task


@dataclass(frozen=True)
class Routing:
    """A router, the library that it routes to, and the encoder of inputs."""

    router: Router
    shelf: Retriever
    encoder: DescriptionEncoder

    def mixes(self, method: str, task: Task) -> list[list[tuple[Adapter, float]]]:
        """Adapters and weights for each test row; the task's own adapter is never among them.

        Args:
            method: "per-request" (LoraRetriever, selection) or "dlp" (DLP-LoRA).
        Raises UsageError if router and library have no other task in common.
        """
        adapters = {r["task"]: r["id"] for r in self.shelf.records if r["task"] != task.name}
        among = [name for name in self.router.tasks if name in adapters]
        if not among:
            raise UsageError(f"{self.shelf.folder.location} and the router have no task in common")
        vectors = embed_inputs(self.encoder, [row.input for row in task.test])
        choose = {"per-request": self.router.nearest, "dlp": self.router.top_p}[method]
        return [
            [(self.shelf.adapter(adapters[name]), weight) for name, weight in mix]
            for mix in choose(vectors, among)
        ]
