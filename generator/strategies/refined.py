"""Proposals after training on their requests' examples, and on a teacher's answers to inputs."""

from collections.abc import Sequence
from dataclasses import replace

from generator.refine.refine import Refiner, Start, refiner_here
from generator.request import Query
from generator.strategies.base import Proposal
from generator.strategies.input_writer import InputWriter
from generator.strategies.multi_task import MultiTask
from library.progress import Progress, no_progress


def refined_proposals(
    queries: Sequence[Query],
    starts: Sequence[Proposal],
    progress: Progress = no_progress,
    refiner: Refiner | None = None,
    *,
    teachers: MultiTask,
    writers: InputWriter,
) -> list[Proposal]:
    """Each proposal trained on its query's examples, for the prompt of its usage; many at once.

    Args:
        queries: of one base, number of steps and budget; each with examples or inputs.
        starts: of one layout, one for each query.
        refiner: trains them; by default this process, on the queries' base.
        teachers: gives the teacher of each that has inputs, and
        writers: the writer of each whose inputs are to be written.
    Raises:
        UsageError: no example is short enough, no input is answered, or the training diverges.
        LayoutMismatch: no teacher, or no writer, is for the base.
    """
    request, refiner = queries[0].request, refiner or refiner_here(queries[0].resources.model)
    pairs = zip(queries, starts, strict=True)
    jobs = [_job(query, start, teachers, writers) for query, start in pairs]
    refined = refiner(
        queries[0].base,
        jobs,
        steps=request.refine,
        budget=request.budget,
        seed=request.seed,
        progress=progress,
    )
    return [
        replace(
            start,
            adapter=result.adapter,
            refined=result,
            tried_in=result.trained_in,
            details={**start.details, "refine": result.to_dict()},
        )
        for start, result in zip(starts, refined, strict=True)
    ]


def _job(query: Query, start: Proposal, teachers: MultiTask, writers: InputWriter) -> Start:
    """What is trained. Raises LayoutMismatch: no teacher, or no writer, is for the base."""
    request = query.request
    job = Start(
        start.adapter,
        request.examples,
        start.usage,
        saw_examples=start.saw_examples,
        instructed=start.instructed,
    )
    if not request.taught:
        return job
    job = replace(job, teacher=teachers.teacher(request.description, query.base))
    if request.inputs:
        return replace(job, inputs=request.inputs)
    writer = writers.writer(request.description, query.base, request.write_inputs)
    return replace(job, writer=writer)
