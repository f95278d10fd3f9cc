"""`make demo`: a description and five examples become an adapter; the base answers with it."""

import json
import sys
from pathlib import Path

from api.cli.console import guarded
from api.cli.generate import produce, readable
from library.files import write_file

DESCRIPTION = (
    "Sort the customer's note about a parcel. Answer with one word: damaged, late, lost or praise."
)
EXAMPLES = (
    ("My parcel arrived with a big hole in the box.", "damaged"),
    ("The courier said Monday, it is Friday now.", "late"),
    ("It never came and the tracking stopped weeks ago.", "lost"),
    ("Super quick delivery, thank you so much!", "praise"),
    ("The vase was in pieces when I opened it.", "damaged"),
)
INPUTS = (
    "The lamp's glass is cracked and the carton is soaked.",
    "Ten days over the promised date and still waiting for my shoes.",
    "Lovely driver, everything came exactly when you said.",
    "Your site says delivered, but nobody here ever got anything.",
)


def run_demo() -> None:
    """Generate an adapter, try it, print the answers and write demo/demo.json."""
    folder = Path("demo")
    summary = produce(
        DESCRIPTION, folder / "adapter", examples=EXAMPLES, attempts=INPUTS, overwrite=True
    )
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    write_file(folder / "demo.json", text.encode())
    print(f"\n{DESCRIPTION}\n\n{readable(summary)}")


if __name__ == "__main__":
    sys.exit(guarded(run_demo))
