"""A server's answers beside what the local base predicts under an adapter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor

from library.adapter import Adapter
from verification.scores.served_contexts import ObservedTokens
from verification.scores.served_fit import EXPLAINED, Hypotheses, Hypothesis

LEAST_NOISE = 0.01  # nats: about what rounding an adapter to bfloat16 changes
STEADY = 0.9  # of contexts, whose two answers have to be the same but for noise


@dataclass(frozen=True)
class ServedAnswers:
    """What a server said in every context.

    Attributes:
        base: of its base model alone.
        adapter: under the adapter's name.
        apart: difference of what it said under that name when asked again, in nats.
    """

    base: ObservedTokens
    adapter: ObservedTokens
    apart: Sequence[float]


@dataclass(frozen=True)
class Comparison:
    """What can be said of the answers. Differences are root mean squares in nats.

    Attributes:
        noise: of the typical context: the base's answers from the local base's.
        effect: of the typical context: what the adapter changes, by the local base.
        steady: how many contexts had the same answer twice, but for noise.
        contexts: how many there are.
        fitted: the adapter at the strength that explains the answers best.
        best: the hypothesis that explains them best.
    """

    noise: float
    effect: float
    steady: int
    contexts: int
    fitted: Hypothesis
    best: Hypothesis

    @property
    def decided(self) -> bool:
        """Whether the adapter changes so much that noise cannot hide it."""
        return self.effect >= EXPLAINED * self.noise

    @property
    def is_steady(self) -> bool:
        return self.steady >= STEADY * self.contexts


def compare(
    answers: ServedAnswers,
    predict: Callable[[Adapter], Float[Tensor, "contexts vocabulary"]],
    adapter: Adapter,
) -> Comparison:
    """Compare a server's answers with what is predicted under an adapter and its variations.

    Raises as `predict` does.
    """
    alone, under = predict(adapter.scaled(0.0)), predict(adapter)
    noise = max(LEAST_NOISE, _typical(answers.base.errors(alone)))
    changed = replace(answers.adapter, logprobs=under.gather(1, answers.adapter.ids))
    hypotheses = Hypotheses(adapter, lambda tried: answers.adapter.errors(predict(tried)) / noise)
    return Comparison(
        noise=noise,
        effect=_typical(changed.errors(alone)),
        steady=sum(apart <= EXPLAINED * noise for apart in answers.apart),
        contexts=len(answers.apart),
        fitted=hypotheses.fitted,
        best=hypotheses.best(),
    )


def _typical(errors: Float[Tensor, " contexts"]) -> float:
    return float(errors.median())
