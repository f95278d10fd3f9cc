"""The base hook: does the base model have the modules that an adapter changes, in these shapes?

Shapes come from the base's config, never its weights. A name in an adapter's config is followed
only to the base that is packaged: a foreign config must not decide what is read or downloaded.
"""

import math
from functools import lru_cache

from library.base.models import DEFAULT_BASE, BaseReference, load_config, resolve_base
from library.errors import BaseModelError, UnsupportedModel, UsageError
from library.layout import REFUSED, layout_of
from verification.artifact import Artifact, Context
from verification.hook import Finding

BASE_HOOK = "base"
Shapes = dict[str, tuple[int, int, int]]


def check_base(artifact: Artifact, context: Context) -> list[Finding]:
    """Compare names and shapes with the base's. Raises BadFile for factors without pairs."""
    if artifact.config is None or artifact.config.get("peft_type") != "LORA":
        return []
    named = artifact.config.get("base_model_name_or_path")
    findings: list[Finding] = []
    if not isinstance(named, str) or not named:
        message = "the config does not name its base model, which servers need"
        findings.append(Finding(BASE_HOOK, "no-base-name", "warn", message))
    reference = context.base or (resolve_base() if named == DEFAULT_BASE else None)
    if reference is None:
        message = f"the base {str(named)[:200]} is not available; give one with --base"
        return [*findings, Finding(BASE_HOOK, "base-not-checked", "info", message)]
    adapted, base_name = _adapted(artifact), reference.name
    try:
        base = _shapes(reference, tuple(sorted({_last(name) for name in adapted})))
    except UsageError as error:  # the family has no such module
        message = f"not for {base_name}: {error}"
        return [*findings, Finding(BASE_HOOK, "wrong-base", "refuse", message)]
    except (BaseModelError, UnsupportedModel) as error:
        return [*findings, Finding(BASE_HOOK, "base-not-checked", "warn", str(error))]
    return [*findings, *_compared(adapted, base, base_name)]


def _compared(adapted: Shapes, base: Shapes, base_name: str) -> list[Finding]:
    for name, shape in adapted.items():
        if name not in base:
            message = f"not for {base_name}: it has no module {name}"
            return [Finding(BASE_HOOK, "wrong-base", "refuse", message)]
        if base[name] != shape:
            evidence = {"module": name, "adapter": list(shape), "base": list(base[name])}
            message = (
                f"not for {base_name}: {name} takes {base[name][0]} to {base[name][1]} numbers, "
                f"the adapter's {shape[0]} to {shape[1]}"
            )
            return [Finding(BASE_HOOK, "wrong-base", "refuse", message, evidence)]
    return []


def _adapted(artifact: Artifact) -> Shapes:
    """In, out and kernel size of each module, without embeddings and heads."""
    return {
        name: (a[1], b[0], math.prod(a[2:]))
        for name, (a, b) in artifact.pairs.items()
        if _last(name) not in REFUSED
    }


@lru_cache(maxsize=32)
def _shapes(reference: BaseReference, targets: tuple[str, ...]) -> Shapes:
    if not targets:
        return {}
    layout = layout_of(load_config(reference), targets)
    return {s.name: (s.in_features, s.out_features, s.kernel) for s in layout.sites}


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]
