"""The served hook: does a server that is said to serve an adapter answer by that adapter?

A server's log-probabilities of next tokens are compared with those that the local base predicts
under the adapter, without it, at other strengths and without one of its parts. The measure is the
server's own noise: how far the answers of its base alone are from what the local base predicts,
which other numerics, kernels or slightly other weights make of them.
"""

import math
from collections.abc import Callable
from typing import Any

from library.base.models import BaseModel, BaseReference
from library.errors import BaseModelError
from verification.artifact import Artifact, Context, ShareProgress
from verification.hook import Finding, Hook, Severity
from verification.scores.served_comparison import Comparison, ServedAnswers, compare
from verification.scores.served_contexts import Predictions, Vocabulary
from verification.scores.served_fit import EXPLAINED
from verification.scores.served_server import CompletionServer, NextTokens, Served, ServerFailed

SERVED_HOOK = "served"
THIS, BASE_ALONE, STRENGTH = "served-this", "served-base", "served-strength"
PARTIAL, OTHER = "served-partial", "served-other"
UNSTEADY, UNDECIDED = "served-unsteady", "served-undecided"
_SAME_SCALE = 0.05  # of the logarithm of a strength
_UNDECIDED = (
    "cannot be told from the base alone: the adapter changes too little beside the server's noise, "
    "in which the local base counts if it is not the server's (--base)"
)
_OTHER = (
    "answers neither as the base nor as this adapter, at any strength or without one layer or one "
    "kind of modules: another adapter answers, or more of this one is missing"
)


def served_hook(
    served: Served,
    reference: Callable[[str | None], BaseReference | None],
    load: Callable[[BaseReference], BaseModel],
) -> Hook:
    """The hook that asks one server.

    Args:
        served: where, and by which name.
        reference: gives the base model of a name in a config; None for one that is not at hand.
        load: loads it.
    """

    def check(subject: Artifact, context: Context) -> list[Finding]:
        named = (subject.config or {}).get("base_model_name_or_path")
        name = named if isinstance(named, str) else None
        found = reference(name)
        if found is None:
            raise BaseModelError(f"the base model {str(named)[:200]} is not at hand; give --base")
        try:
            with CompletionServer(served.url, served.key) as server:
                base_name = server.base_of(served, name or found.name)
                local, progress = Predictions(load(found)), context.progress
                return [check_served(server, served.model, base_name, local, subject, progress)]
        except ServerFailed as error:
            return [Finding(SERVED_HOOK, error.reason, "refuse", str(error))]

    return Hook(SERVED_HOOK, 3e4, check)


def check_served(
    server: CompletionServer,
    model: str,
    base_name: str,
    local: Predictions,
    subject: Artifact,
    progress: ShareProgress = lambda share: None,
) -> Finding:
    """One finding: what answers under a name, this adapter or another thing.

    Args:
        server: the one that is asked.
        model: the adapter's name there.
        base_name: its base model's name there.
        local: what the local base predicts.
        subject: the adapter.
        progress: called with the share that is done.
    Raises ServerFailed; AdapterFileError, LayoutMismatch if the adapter is none for this base.
    """
    answers = _asked(server, model, base_name, local, progress)
    compared = compare(answers, local.under, subject.adapter)
    code, severity, told = _judged(compared, _dropped_scale(subject))
    message = f"{model!r} {told}{_measure(compared)}"
    about = {"model": model, "base_model": base_name}
    return Finding(SERVED_HOOK, code, severity, message, about | _evidence(compared))


def _asked(
    server: CompletionServer,
    model: str,
    base_name: str,
    local: Predictions,
    progress: ShareProgress,
) -> ServedAnswers:
    """The answers in every context, the second ones after all others. Raises ServerFailed."""
    names, texts, rounds = (base_name, model, model), local.contexts.texts, []
    for number, name in enumerate(names):
        answers = []
        for text in texts:
            progress((number + len(answers) / len(texts)) / len(names) / 2)
            answers.append(server.next_tokens(name, text))
        rounds.append(answers)
    vocabulary = Vocabulary(local.base.tokenizer)
    alone, under = (vocabulary.observed(answers) for answers in rounds[:2])
    if alone is None or under is None:
        raise server.without_logprobs("answers in tokens that the local base does not have")
    return ServedAnswers(alone, under, [_apart(*pair) for pair in zip(*rounds[1:], strict=True)])


def _apart(one: NextTokens, other: NextTokens) -> float:
    """Root mean square difference of two answers where they name the same tokens, in nats."""
    common = one.keys() & other.keys()
    if not common:
        return math.inf
    return math.sqrt(sum((one[token] - other[token]) ** 2 for token in common) / len(common))


def _judged(compared: Comparison, dropped: float | None) -> tuple[str, Severity, str]:
    """Code, severity and what the model does; `dropped` is the strength without rsLoRA's scale."""
    if not compared.decided:
        return UNDECIDED, "warn", _UNDECIDED
    if not compared.is_steady:
        told = f"gives only {compared.steady} of {compared.contexts} answers again"
        return UNSTEADY, "refuse", f"{told} when asked again: not always the same adapter answers"
    best = compared.best
    if not best.explains:
        return OTHER, "refuse", _OTHER
    if best.missing is not None:
        return PARTIAL, "refuse", f"answers as this adapter without {best.missing}"
    if best.strength == 0:
        return BASE_ALONE, "refuse", "answers as the base alone: the adapter is not applied"
    if best.strength == 1:
        told = f"at {compared.fitted.strength:.2f} times its strength"
        return THIS, "info", f"answers as this adapter, {told}"
    told = f"answers as this adapter at {best.strength:.2f} times its strength"
    if dropped is not None and abs(math.log(best.strength / dropped)) < _SAME_SCALE:
        told += ", as if rsLoRA's scale were left out"
    return STRENGTH, "refuse", told


def _dropped_scale(subject: Artifact) -> float | None:
    """The strength of an rsLoRA adapter whose scale is taken for alpha / r."""
    config = subject.config or {}
    return config["r"] ** -0.5 if config.get("use_rslora") else None


def _measure(compared: Comparison) -> str:
    best = compared.best
    return (
        f"; {best.explained} of {compared.contexts} next tokens are within {EXPLAINED:.0f} times "
        f"the server's noise ({compared.noise:.3f} nats), and the adapter changes them by "
        f"{compared.effect:.2f}"
    )


def _evidence(compared: Comparison) -> dict[str, Any]:
    best = compared.best
    return {
        "contexts": compared.contexts,
        "explained": best.explained,
        "steady": compared.steady,
        "noise": compared.noise,
        "effect": compared.effect,
        "strength": best.strength if best.strength == 0 else compared.fitted.strength,
        "missing": best.missing if best.explains else None,
        "misfit": best.misfit,
    }
