"""lorasmith: describe a task, get a LoRA adapter that works, with evidence that it does.

    import lorasmith

    adapter = lorasmith.generate("Say whether the review is positive or negative.")
    adapter.save("my-adapter")
    lorasmith.verify("my-adapter").verdict  # "warn": nothing of it was tested yet

This package is the whole Python interface: what it does not export is internal and may change. All
its errors are kinds of `LorasmithError`. Importing it loads no model and no torch.

Lives here: functions that users call, and what they return. Does not: anything that computes.
"""

from library.errors import LorasmithError
from lorasmith.adapters import FinishedAdapter, compose, generate, generate_samples
from lorasmith.examples import answer, refine
from lorasmith.libraries import Library, load_library, search
from lorasmith.verifying import verify

__all__ = [
    "FinishedAdapter",
    "Library",
    "LorasmithError",
    "answer",
    "compose",
    "generate",
    "generate_samples",
    "load_library",
    "refine",
    "search",
    "verify",
]
