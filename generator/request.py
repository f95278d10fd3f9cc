"""Requests and queries: what is asked for, validated once, and what it needs, computed once."""

import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from generator.models.base import Condition, Experts, Generator
from generator.refine.limits import (
    DEFAULT_BUDGET,
    MAX_BUDGET,
    MAX_EXAMPLES,
    MAX_INPUTS,
    UNDESCRIBED,
    require_trainable,
)
from generator.resources import Resources
from index.encoders.descriptions import DEFAULT_ENCODER, Embeddings, normalise
from index.encoders.pairs import EmbeddedPairs, embed_pairs
from index.search.retriever import NEIGHBOURS, Neighbour, Retriever, similarities
from library.adapter import stack
from library.base.models import BaseModel, BaseReference
from library.base.task_vectors import in_context_prompts, task_vectors
from library.errors import UsageError
from library.peft.write import Profile
from library.stages import Stages, untimed
from library.tasks.files import Example
from library.tasks.identity import examples_digest

MAX_STRENGTH = 10.0
MAX_RANK = 256
MAX_SEED = 2**53 - 1  # what JSON numbers hold exactly
NEITHER = "a description is needed, or examples to train on"
UNTRAINED = "a description is needed, or training on the examples: leave out refine 0"
ONLY_EXAMPLES = "a description is needed for this; there are only examples"
UsageMode = Literal["best", "bare", "prompted"]


@dataclass(frozen=True)
class Request:
    """An adapter that is asked for. Validated on construction; raises UsageError.

    Attributes:
        description: the task, 1 to 8,192 characters; kept in its normal form. None where there are
            examples alone.
        rank: below the adapter's own, the best approximation of ΔW; above, zero-padded.
        strength: factor on ΔW.
        seed: part of the adapter's identity; what a generator draws depends on it (icm-lora
            draws, sg-lora for any seed but 0).
        profile: see library.peft.write.
        examples: of the task.
        refine: steps of training on the examples; None for as many as suit them, 0 for none.
        mode: the prompt that the adapter is for; best takes what was measured to be better.
        budget: seconds that refining may cost by a stored table (generator.refine.costs).
        inputs: of the task, without answers, for a teacher to answer; then the adapter is for
            prompts that are the input alone.
        write_inputs: number of such inputs that are written from the description instead.
    """

    description: str | None
    rank: int | None = None
    strength: float = 1.0
    seed: int = 0
    profile: Profile = "portable"
    examples: tuple[Example, ...] = ()
    refine: int | None = None
    mode: UsageMode = "best"
    budget: float = DEFAULT_BUDGET
    inputs: tuple[str, ...] = ()
    write_inputs: int = 0

    def __post_init__(self) -> None:
        if self.description is not None:
            object.__setattr__(self, "description", normalise(self.description))
        elif self.write_inputs:
            raise UsageError(UNDESCRIBED)
        elif not (self.examples or self.inputs):
            raise UsageError(NEITHER)
        if self.mode not in get_args(UsageMode):
            raise UsageError(f"mode must be best, bare or prompted, not {self.mode!r}")
        if self.rank is not None and not 1 <= self.rank <= MAX_RANK:
            raise UsageError(f"rank must be from 1 to {MAX_RANK}, not {self.rank}")
        if not math.isfinite(self.strength) or not 0 < abs(self.strength) <= MAX_STRENGTH:
            raise UsageError(
                f"strength must be from -{MAX_STRENGTH:g} to {MAX_STRENGTH:g} and not zero, "
                f"not {self.strength}"
            )
        if not 0 <= self.seed <= MAX_SEED:
            raise UsageError(f"seed must be from 0 to {MAX_SEED}, not {self.seed}")
        if self.profile not in ("portable", "lossless"):
            raise UsageError(f"profile must be portable or lossless, not {self.profile!r}")
        if len(self.examples) > MAX_EXAMPLES:
            raise UsageError(f"at most {MAX_EXAMPLES} examples, not {len(self.examples)}")
        try:
            "".join(e.input + e.output for e in self.examples).encode("utf-8")
            "".join(self.inputs).encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError("an example or input is not valid UTF-8") from error
        if self.refine is not None and self.refine < 0:
            raise UsageError(f"refine must be a number of steps, or 0, not {self.refine}")
        if not 1 <= self.budget <= MAX_BUDGET:
            raise UsageError(f"budget must be from 1 to {MAX_BUDGET:g} seconds, not {self.budget}")
        if not 0 <= self.write_inputs <= MAX_INPUTS:
            raise UsageError(f"write_inputs must be from 1 to {MAX_INPUTS}, or 0 for none")
        if self.inputs and self.write_inputs:
            raise UsageError("inputs are given: leave out write_inputs, or the inputs")
        if self.refine and not (self.examples or self.taught):
            raise UsageError("refine needs examples to train on")
        if self.taught and self.refine == 0:
            raise UsageError("inputs are there to be trained on: leave out refine 0")
        if self.taught and self.mode == "prompted":
            raise UsageError("inputs make an adapter for bare prompts: mode must be best or bare")
        if self.refines:
            require_trainable(self.examples, self.refine, self.inputs, self.write_inputs)

    @property
    def refines(self) -> bool:
        """Whether an adapter is trained on the examples, or on answers to the inputs."""
        return bool(self.examples or self.taught) and self.refine != 0

    @property
    def taught(self) -> bool:
        """Whether a teacher answers inputs, given or written."""
        return bool(self.inputs or self.write_inputs)

    @property
    def examples_digest(self) -> str | None:
        """SHA-256 of the examples in their order; None if there are none."""
        return examples_digest(self.examples)


class Query:
    """A request for a base model, with all that strategies look up or compute for it.

    Nothing is computed before it is needed, and nothing twice: the description is embedded once,
    however many strategies try it, and what was computed goes with the query.

    Args:
        request: the request.
        base: the base model that the adapter is for.
        resources: loaded encoders, library and base models.
        without: a task whose own adapters are left out of retrieval; for leave-one-out.
        stages: times what it computes.
    """

    def __init__(
        self,
        request: Request,
        base: BaseReference,
        resources: Resources,
        without: str = "",
        stages: Stages = untimed,
    ) -> None:
        self.request, self.base, self.resources, self.without = request, base, resources, without
        self.stages = stages
        self._embeddings: dict[str, Embeddings] = {}
        self._nearest_experts: dict[int, list[Neighbour]] = {}

    def reseeded(self, seed: int) -> "Query":
        """The same query with another seed; it keeps what was computed, none of which is drawn."""
        other = copy(self)
        other.request = replace(self.request, seed=seed)
        return other

    def without_examples(self) -> "Query":
        """The same query by its description alone; it keeps what was computed from that."""
        other = copy(self)
        other.request = replace(self.request, examples=())
        other.__dict__.pop("task_vector", None)  # it is of the examples too
        return other

    @property
    def description(self) -> str:
        """The request's description. Raises UsageError if there are only examples."""
        if self.request.description is None:
            raise UsageError(ONLY_EXAMPLES)
        return self.request.description

    def embeddings(self, encoder: str = DEFAULT_ENCODER) -> Embeddings:
        """The embedded description by an encoder, one row."""
        if encoder not in self._embeddings:
            texts = [self.description]
            reader = self.resources.reader(encoder, self.base)
            with self.stages("embed"):
                self._embeddings[encoder] = reader.encode(texts)
        return self._embeddings[encoder]

    def pairs(self, encoder: str, most: int) -> EmbeddedPairs:
        """The request's first `most` examples, embedded by an encoder: one row."""
        examples = self.request.examples[:most]
        return embed_pairs(self.resources.reader(encoder, self.base), [examples])

    @cached_property
    def retriever(self) -> Retriever:
        """The library for the base, as it was when the query first looked. Raises as Resources."""
        return self.resources.retriever(self.base)

    @cached_property
    def neighbours(self) -> list[Neighbour]:
        """Library adapters with the nearest descriptions, nearest first; none without a library."""
        if self.request.description is None or self.resources.library_fit.misfit(self.base):
            return []
        retriever = self.retriever
        vector = self.embeddings(retriever.encoder.name).pooled[0].cpu()
        with self.stages("retrieve"):
            return retriever.nearest(
                vector, NEIGHBOURS, lambda record: record["task"] != self.without
            )

    @property
    def similarity(self) -> float | None:
        """Cosine of the nearest neighbour's description; None if there is no neighbour."""
        return self.neighbours[0].similarity if self.neighbours else None

    def require_neighbours(self) -> Retriever:
        """The library for the base, once it has neighbours to offer.

        Raises UsageError if there are none, or no description that could be near to them;
        LayoutMismatch or UnsupportedModel if it does not fit.
        """
        _ = self.description
        retriever = self.retriever
        if not self.neighbours:
            raise UsageError(f"{retriever.folder.location} holds no adapter for '{self.base.name}'")
        return retriever

    @property
    def model(self) -> BaseModel:
        """The loaded base model."""
        return self.resources.model(self.base)

    def nearest_experts(self, k: int) -> list[Neighbour]:
        """The k nearest adapters of the library's own layout, nearest first.

        None of them is of the task `without`. Raises UsageError without a description or a
        library; LayoutMismatch or UnsupportedModel if that does not fit.
        """
        if k not in self._nearest_experts:
            retriever = self.retriever
            own = {record["id"] for record in retriever.experts}
            vector = self.embeddings(retriever.encoder.name).pooled[0].cpu()
            with self.stages("retrieve"):
                self._nearest_experts[k] = retriever.nearest(
                    vector,
                    k,
                    lambda record: record["id"] in own and record["task"] != self.without,
                )
        return self._nearest_experts[k]

    def experts(self, nearest: Sequence[Neighbour]) -> Experts:
        """What the library has of some neighbours, in float64 where generators run.

        Raises UsageError for no neighbours.
        """
        retriever = self.retriever
        if not nearest:
            raise UsageError(f"{retriever.folder.location} holds no other adapter of its layout")
        moments = zip(*(retriever.moments(n.id) for n in nearest), strict=True)
        means, variances = (
            [stack(part).to(self.resources.device, torch.float64)] for part in moments
        )
        cosines = similarities(nearest)[None].to(self.resources.device)
        return Experts(means, variances, cosines)

    @cached_property
    def task_vector(self) -> Float[Tensor, "1 d"]:
        """What the base makes of the description and the examples, computed once.

        Raises UsageError if there is no description, BaseModelError.
        """
        description = self.description  # before the base is loaded
        prompts = in_context_prompts(self.model.tokenizer, description, self.request.examples)
        return task_vectors(self.model, [prompts])

    def condition(self, generator: Generator, encoder: str) -> Condition:
        """The parts of a condition that a generator needs, and those that it can use.

        Args:
            encoder: of the texts that it was trained with.
        Raises UsageError where a description or experts are needed and there are none,
        BaseModelError where the base is needed and cannot be read.
        """
        text = examples = experts = task = base = None
        optional, request = generator.optional, self.request
        reads_text = "description" in optional and request.description is not None
        if "description" in generator.needs or reads_text:
            text = self.embeddings(encoder)
        if generator.max_examples and request.examples:
            examples = self.pairs(encoder, generator.max_examples)
        if "experts" in generator.needs:
            experts = self.experts(self.nearest_experts(generator.top_k))
        if "task" in generator.needs:
            task = self.task_vector.to(self.resources.device)
        if "base" in generator.needs:
            base = self.model.model
        return Condition(text, examples, experts, task, base, self.request.seed)
