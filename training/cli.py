"""`lorasmith train`: Lightning's own command line over our modules and data."""

import argparse
import warnings
from collections.abc import Sequence

from library.errors import BaseModelError, LorasmithError, UsageError


def run_lightning(arguments: Sequence[str]) -> None:
    """Run fit, validate or test as LightningCLI does.

    Raises:
        BaseModelError: jsonargparse, on which LightningCLI rests, is not installed.
        UsageError: the arguments or the YAML are wrong.
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
    # sys.argv stays as it is: with several devices Lightning starts the others by it.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    try:
        LightningCLI(
            lightning.LightningModule,
            lightning.LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_kwargs={"overwrite": True},
            parser_kwargs={"prog": "lorasmith train", "exit_on_error": False},
            args=[*arguments],
        )
    except argparse.ArgumentError as error:
        raise UsageError(" ".join(str(error).split())) from error
    except ValueError as error:
        cause = _lorasmith_error(error)
        if cause is None:
            raise
        raise cause from None


def _lorasmith_error(error: BaseException | None) -> LorasmithError | None:
    """The error of ours that jsonargparse took for a value of the wrong type, if there is one."""
    while error is not None and not isinstance(error, LorasmithError):
        error = error.__cause__ or error.__context__
    return error
