"""Variants of synthetic tasks taken apart: the parameters in their names."""

import ast
from typing import Any

from training.synthetic.variant import Variant


def parameters_of(variant: Variant) -> tuple[Any, ...]:
    return ast.literal_eval(variant.name[variant.name.index("(") :])
