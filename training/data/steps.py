"""Datasets whose items are computed from their number."""

from collections.abc import Callable
from typing import TypeVar

from torch.utils.data import Dataset

Item = TypeVar("Item")


class IndexedDataset(Dataset[Item]):
    """Item i is `item(i)`; what is drawn for it depends on a seed and i alone."""

    def __init__(self, count: int, item: Callable[[int], Item]) -> None:
        self.count, self.item = count, item

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        return self.item(index)
