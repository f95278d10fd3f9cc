"""Verifications of stored adapters, which are jobs: what one looks at, and its report."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from api.errors import StorageUnreachable
from api.service.hooks import configured, drawn_challenge, hooks_of
from api.service.job_store import JobRow
from api.service.jobs import Share
from api.service.making import examples_json, examples_of
from api.service.metrics import Metrics
from api.service.settings import Settings
from api.service.store import Store
from generator.engine import Engine
from library.errors import UsageError
from library.tasks.files import Example
from verification.artifact import Artifact, Context
from verification.run import Policy, require_known_hooks, run_hooks
from verification.scores.agreement import AGREEMENT_HOOK
from verification.scores.behaviour import BEHAVIOUR_HOOK
from verification.zk.backend import read_srs
from verification.zk.bundle import require_count
from verification.zk.hook import Challenge, zk_hook
from verification.zk.report import ZK_HOOK


class Verifying:
    """Runs hooks on stored adapters.

    Args:
        settings: name the bases, the library, the tasks and the SRS.
        store: holds the adapters of callers.
        engine: gives the engine, once it is loaded.
        metrics: where the stages are measured.
    Raises:
        ProofFileError: the configured SRS cannot be used.

    Attributes:
        hooks: those that run when none is named, by name.
    """

    def __init__(
        self, settings: Settings, store: Store, engine: Callable[[], Engine], metrics: Metrics
    ) -> None:
        self._settings, self._store, self._engine = settings, store, engine
        self._metrics = metrics
        self.hooks = hooks_of(settings, engine)
        self._srs = None if settings.zk_srs is None else read_srs(settings.zk_srs)

    def asked(
        self,
        sees: str | None,
        identity: str,
        hooks: Sequence[str] | None,
        examples: Sequence[Example],
        challenge: Challenge | None,
    ) -> dict[str, Any]:
        """What the job of a verification is asked, as JSON.

        Args:
            sees: whose adapters may be verified; None for everybody's.
            hooks: names; all but zk if None.
            examples: for the behaviour hook.
            challenge: for the zk hook; one with a nonce of its own if None.
        Raises:
            NotFound, UnknownName, UsageError, MissingExtra, NotReady.
        """
        self._store.require(sees, identity)
        names = [*self.hooks] if hooks is None else list(hooks)
        require_known_hooks(names, (*self.hooks, ZK_HOOK))
        if len(set(names)) < len(names):
            raise UsageError("hooks: each may be named once")
        if examples and BEHAVIOUR_HOOK not in names:
            raise UsageError(
                "examples: they are for the hook behaviour, which is not among the hooks"
            )
        if {AGREEMENT_HOOK, BEHAVIOUR_HOOK} & {*names}:
            self._engine()  # what they need is loaded, or the client comes again
        drawn = drawn_challenge(names, challenge)
        if drawn is not None:
            self._require_modules(sees, identity, drawn["modules"])
        return {"hooks": names, "zk": drawn, "examples": examples_json(examples)}

    def verify_by_job(self, sees: str | None, job: JobRow, progress: Share) -> dict[str, Any]:
        """Every hook in its turn; ends when the adapter is deleted meanwhile."""
        record = self._store.get(sees, job.adapter)
        files = self._store.files(sees, record)
        examples = examples_of(job.request["examples"])

        def advance(share: float) -> None:
            with suppress(StorageUnreachable):  # nobody can have deleted it meanwhile
                self._store.require(sees, job.adapter)
            progress(share)

        base = configured(self._settings, record["base_model"])
        context = Context(base=base, examples=examples, progress=advance)
        hooks = [*self.hooks.values()]
        if job.request["zk"] is not None:
            hooks.append(zk_hook(Challenge(**job.request["zk"]), self._srs))
        policy = Policy(hooks=tuple(job.request["hooks"]))
        with self._metrics.stages("jobs")("verify"):
            return run_hooks(Artifact(files), context, policy, hooks).to_dict()

    def _require_modules(self, sees: str | None, identity: str, count: int | None) -> None:
        """Raise UsageError if fewer modules could be proved than are asked for."""
        files = self._store.files(sees, self._store.get(sees, identity))
        require_count(len(Artifact(files).pairs), count)
