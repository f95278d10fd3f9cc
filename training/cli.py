"""`lorasmith train`: Lightning's own command line over our modules and data."""

from collections.abc import Sequence

from library.errors import BaseModelError


def main(arguments: Sequence[str]) -> None:
    """Run fit, validate or test as LightningCLI does.

    Raises BaseModelError if jsonargparse, on which LightningCLI rests, is not installed.
    """
    try:
        from lightning.pytorch.cli import LightningCLI
    except ImportError as error:
        raise BaseModelError(
            "training needs jsonargparse; run: pip install 'jsonargparse[signatures]'"
        ) from error
    import lightning
    import torch

    torch.set_float32_matmul_precision("high")
    LightningCLI(
        lightning.LightningModule,
        lightning.LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_kwargs={"overwrite": True},
        args=list(arguments),
    )
