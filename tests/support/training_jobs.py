"""Training jobs of random rows."""

import torch

from library.base.batches import TokenRow
from library.trainer.recipes.recipe import TrainingJob


def job(name: str, count: int = 7, seed: int = 0) -> TrainingJob:
    generator = torch.Generator().manual_seed(sum(map(ord, name)) + seed)

    def row() -> TokenRow:
        sizes = torch.randint(1, 9, (2,), generator=generator).tolist()
        ids = [torch.randint(3, 61, (n,), generator=generator).tolist() for n in sizes]
        return TokenRow(0, ids[0], ids[1])

    return TrainingJob(
        name, tuple(row() for _ in range(count)), tuple(row() for _ in range(4)), seed
    )
