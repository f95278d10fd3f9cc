"""Names of adapters, their versions, and the gate between them."""

from collections.abc import Sequence

from lorasmith_client.answers import Job, Name, NameSummary, Promotion, Version
from lorasmith_client.flow import Flow, delete, get, post, segment
from lorasmith_client.jobs import result
from lorasmith_client.parsing import listed, parsed
from lorasmith_client.requests import SuiteRow


def list_names() -> Flow[list[NameSummary]]:
    """The names of the key."""
    return listed(NameSummary, (yield from get("/v1/names")), "names")


def get_name(name: str) -> Flow[Name]:
    """A name with its versions, its suite and its history."""
    return parsed(Name, (yield from get(_path(name))))


def delete_name(name: str) -> Flow[None]:
    """Delete a name with its suite and history; adapters stay."""
    yield from delete(_path(name))


def publish(name: str, adapter: str, suite: Sequence[SuiteRow] | None = None) -> Flow[Version]:
    """Publish an adapter as the next version of a name, which stays at its current one.

    Args:
        adapter: its id.
        suite: rows that versions are promoted by (default: those that the name has).
    """
    body = {"adapter": adapter, "suite": None if suite is None else list(suite)}
    return parsed(Version, (yield from post(f"{_path(name)}/versions", body)))


def submit_promote(name: str, version: int | None = None, at_least: int | None = None) -> Flow[Job]:
    """Promote a version of a name (default: the newest), and do not wait."""
    body = {"version": version, "at_least": at_least}
    return parsed(Job, (yield from post(f"{_path(name)}/promote", body)))


def promote(name: str, version: int | None = None, at_least: int | None = None) -> Flow[Promotion]:
    """Whether a version became the current one, by the rows of the suite; waits for the job.

    Args:
        version: default: the newest.
        at_least: rows that it has to pass, whatever the current version does.
    """
    job = yield from submit_promote(name, version, at_least)
    return (yield from result(job, Promotion))


def rollback(name: str) -> Flow[Promotion]:
    """Go back to the version that was current before."""
    return parsed(Promotion, (yield from post(f"{_path(name)}/rollback")))


def _path(name: str) -> str:
    return f"/v1/names/{segment(name)}"
