"""Libraries of adapters: open one, list it, read from it, search it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pretrained

if TYPE_CHECKING:
    from index.search.searcher import Result
    from library.store.catalogue import Catalogue
    from library.store.records import RecordEntry

SHIPPED_LIBRARY = str(pretrained.LIBRARY)


@dataclass(frozen=True)
class Library:
    """An opened library.

    Attributes:
        location: its folder or URL.
        catalogue: lists and finds its adapters; up to date when it was opened.
    """

    location: str
    catalogue: "Catalogue"

    def adapters(
        self,
        task: str | None = None,
        recipe: str | None = None,
        license_class: str | None = None,
        base: str | None = None,
        rank: int | None = None,
        sort: Literal["task", "score", "created"] = "task",
        limit: int | None = None,
        after: tuple[str, int, str, str] | None = None,
    ) -> "list[RecordEntry]":
        """Its adapters: id, sha256, task, recipe, base model, rank and score of each.

        Args:
            task: its name, or a pattern with * and ?.
            sort: by task, or the best score first, or the newest first.
            after: the `position` of an adapter, for those that stand behind it by task.
        Raises:
            OutputError: a record is damaged.
        """
        from library.errors import OutputError
        from library.store.records import Selection

        if self.catalogue.broken:
            raise OutputError(self.catalogue.broken[0])
        selection = Selection(task, recipe, license_class, base, rank, sort, limit, after)
        return self.catalogue.entries(selection)

    def files(self, name: str) -> dict[str, bytes]:
        """The three files of an adapter, by id or task. Raises UnknownName, AdapterFileError."""
        from library.store.catalogue import files_of, find

        return files_of(self.catalogue.folder, find(self.catalogue, name)["id"])


def load_library(
    location: str | Path | None = None,
    *,
    catalogue: str | None = None,
    note: Callable[[str], None] | None = None,
    write: bool = False,
) -> Library:
    """An opened library of adapters.

    Args:
        location: folder or URL; the shipped sample by default.
        catalogue: postgresql:// or sqlite:/// URL of its catalogue; a file in it by default.
        note: called with remarks about the catalogue.
        write: whether it is opened to be changed, which a packed library cannot be.
    Raises:
        MissingPath: there is no library.
        UsageError: it cannot be changed.
        CatalogueError: its catalogue cannot be used.
    """
    from library.store.catalogue import open_catalogue
    from library.store.open import open_library

    location = str(location or SHIPPED_LIBRARY)
    opened = open_catalogue(open_library(location, write=write), catalogue, note)
    opened.refresh()
    return Library(location, opened)


def search(
    text: str | None = None,
    *,
    adapter: Path | str | None = None,
    library: str | Path | None = None,
    by: Literal["description", "weights"] | None = None,
    k: int = 10,
    base: str | None = None,
    layout: str | None = None,
    recipe: str | None = None,
    license: str | None = None,
    tags: Sequence[str] = (),
    encoder: str | None = None,
    weight_encoder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] | None = None,
) -> "list[Result]":
    """The k adapters of a library that are nearest to a text, an adapter, or both; best first.

    Args:
        text: a task's description.
        adapter: an adapter's folder.
        library: folder or URL; the shipped sample by default. Its index is made if it has none.
        by: what is compared: description by default for a text, weights for an adapter.
        base, layout, recipe, license, tags: only adapters of these.
        encoder: sentence-transformers id or folder; the packaged one by default.
        weight_encoder: folder of a trained one; the shipped one by default.
        progress: called with adapters encoded so far, and of how many.
        note: called with remarks about what was repaired, or compared instead.
    Raises:
        UsageError and its kinds, NotSearchable, EncoderMismatch, IndexDamaged, AdapterFileError.
    """
    from index.encoders.descriptions import DEFAULT_ENCODER, DescriptionEncoder, normalise
    from index.encoders.weights import load_weight_encoder
    from index.search.searcher import Searcher
    from index.search.sync import quiet
    from index.segments.metadata import Filter
    from index.segments.view import require_k
    from library.peft.folder import read_adapter_folder
    from library.progress import no_progress

    require_k(k)
    description = None if text is None else normalise(text)
    files = None if adapter is None else read_adapter_folder(Path(adapter))
    searcher = Searcher(
        str(library or SHIPPED_LIBRARY),
        lambda: DescriptionEncoder(encoder or DEFAULT_ENCODER),
        lambda: load_weight_encoder(weight_encoder),
        progress=progress or no_progress,
        note=note or quiet,
    )
    filter = Filter(base, layout, recipe, license, tuple(tags))
    return searcher.search(description, files, by=by, k=k, filter=filter)
