"""README.md of an adapter's folder: what it is, how to load it, which prompt to use."""

import json
from typing import Any

from library.base.usage import PLACEHOLDER


def folder_readme(provenance: dict[str, Any]) -> str:
    """Six facts for the person who opens the folder, from what provenance says."""
    usage, base = provenance["usage"], provenance["base"]["id"]
    description, report = provenance["description"], provenance["report"]
    task = f"for this task: {_quoted(description)}" if description else "from examples alone"
    refine = (provenance.get("details") or {}).get("refine") or {}
    lines = [
        f"# LoRA adapter {provenance['id']}",
        f"- What it is: a LoRA adapter for `{base}`, made by lorasmith ({provenance['generator']}) "
        f"{task}",
        f'- Load it: `PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), '
        '"THIS_FOLDER")`, or as a LoRA module of vLLM.',
        f"- Prompt: {_prompt(usage)}",
        f"- Expect: {_expectation(provenance['expected'], refine.get('inputs'))}",
        f"- Verified: {report['verdict'] if report else 'not yet'}; `lorasmith verify THIS_FOLDER` "
        "checks it again, and provenance.json says how it was made.",
    ]
    return "\n".join(lines) + "\n"


def _prompt(usage: dict[str, str]) -> str:
    if usage["mode"] == "bare":
        return "the input alone, as the user's message of the base's chat template."
    template = json.dumps(usage["template"], ensure_ascii=False)
    return (
        "as the user's message of the base's chat template, with the input where the last "
        f"{PLACEHOLDER} stands (\\n is a line break): {template}"
    )


def _expectation(expected: dict[str, Any] | None, taught: dict[str, Any] | None) -> str:
    """What to expect of the answers, or why nobody knows.

    Args:
        taught: provenance of training on a teacher's answers to inputs, if there was any.
    """
    if expected is None:
        return f"not measured; {_agreement(taught)}try it on inputs of your own."
    return (
        f"{expected['low']:.0f} to {expected['high']:.0f} of 100 answers exactly right "
        f"({expected['calibration']})."
    )


def _agreement(taught: dict[str, Any] | None) -> str:
    if taught is None:
        return ""
    learned = f"it learned the answers of a teacher to {taught['used']} inputs, right or wrong"
    same = taught["agreement"]
    if same is None:
        return f"{learned}; "
    return f"{learned}, and gives them to {same['same']} of {same['of']} inputs held back; "


def _quoted(text: str) -> str:
    return f"`{' '.join(text.split())}`" if "`" not in text else f"“{' '.join(text.split())}”"
