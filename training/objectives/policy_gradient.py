"""The policy gradient with a group's mean as baseline: sampled answers, advantages, the loss."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from library.base.batches import TokenBatch, TokenRow, grouped
from training.data.batches import PromptRow


def advantages(rewards: Float[Tensor, "prompts k"]) -> Float[Tensor, "prompts k"]:
    """Each reward less the mean of its prompt's; exactly zero where all k are equal."""
    equal = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
    return (rewards - rewards.mean(dim=1, keepdim=True)).masked_fill(equal, 0)


@dataclass(frozen=True)
class Answered:
    """Sampled answers: k to each prompt, by length in groups.

    Attributes:
        groups: prompts with their answers; the answers' tokens alone are marked.
        advantages: of the rows of each group.
        rewards: of all answers.
    """

    groups: list[TokenBatch]
    advantages: list[Float[Tensor, "_batch"]]
    rewards: Float[Tensor, "prompts k"]

    @classmethod
    def of(
        cls,
        asked: Sequence[PromptRow],
        answers: Sequence[Sequence[int]],
        rewards: Float[Tensor, "prompts k"],
        pad: int,
        parts: int,
        device: torch.device,
    ) -> "Answered":
        """Cut answers into at most `parts` padded groups on a device.

        Args:
            asked: one for each answer, those of a prompt side by side.
            answers: their tokens, the end of sequence among them where it was reached.
            rewards: of the answers.
            pad: the padding token.
            parts: the most groups.
            device: of the groups and their advantages.
        """
        rows = [
            TokenRow(row.owner, row.prompt, list(tokens))
            for row, tokens in zip(asked, answers, strict=True)
        ]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # as `grouped` sorts
        groups = [g.to(device) for g in grouped([rows[i] for i in order], pad, parts)]
        by_length = advantages(rewards).flatten()[order].to(device)
        return cls(groups, list(by_length.split([len(g.ids) for g in groups])), rewards)

    def figures(self) -> dict[str, float]:
        """Mean reward, share of prompts whose answers teach something, tokens of an answer."""
        answers = sum(len(group.ids) for group in self.groups)
        varied = (advantages(self.rewards) != 0).any(dim=1).float().mean()
        return {
            "reward": float(self.rewards.mean()),
            "varied": float(varied),
            "answer_length": self.tokens / answers,
        }

    @property
    def tokens(self) -> int:
        """Of all answers."""
        return sum(int(group.answer.sum()) for group in self.groups)


class PolicyTerms:
    """What the loss sums: advantage · (-log p), and kl_weight · (log p - log p of the start)²/2.

    p is the probability of the whole answer. Minimising the mean is REINFORCE; the gradient of the
    second term is an unbiased estimate of that of KL(p | start) where answers are samples of p.

    Args:
        answered: the answers.
        kl_weight: of the second term, for which `start` has to be set.

    Attributes:
        start: the answers' mean losses a token under the generator that training began from.
    """

    def __init__(self, answered: Answered, kl_weight: float = 0.0) -> None:
        self.answered, self.kl_weight = answered, kl_weight
        self.start: Float[Tensor, " rows"] | None = None
        self._surprisal: list[Tensor] = []
        self._ratios: list[Tensor] = []

    def __call__(self, number: int, losses: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """The terms of a group's rows from their mean losses a token."""
        groups = self.answered.groups
        lengths = groups[number].answer.sum(dim=1)
        surprisal = losses * lengths  # -log p
        self._surprisal.append(surprisal.detach().sum())
        terms = self.answered.advantages[number] * surprisal
        if self.start is None:
            return terms
        before = self.start.split([len(group.ids) for group in groups])[number]
        ratio = before * lengths - surprisal  # log p - log p of the start
        self._ratios.append(ratio.detach())
        return terms + self.kl_weight * ratio.square() / 2

    def figures(self) -> dict[str, float]:
        """Entropy in nats a token and KL in nats an answer, both estimated from the samples."""
        entropy = float(torch.stack(self._surprisal).sum()) / self.answered.tokens
        if not self._ratios:
            return {"entropy": entropy}
        return {"entropy": entropy, "kl": float(torch.cat(self._ratios).mean())}
