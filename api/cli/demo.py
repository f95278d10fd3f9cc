"""`make demo`: one sentence becomes an adapter, and the base answers with and without it."""

import json
import sys
from pathlib import Path

from api.cli.console import guarded
from api.cli.generate import produce, readable
from library.files import write_file

DESCRIPTION = (
    "You are given a short review of a product or a place. Decide whether its sentiment is "
    "positive or negative. Answer with 'POS' or 'NEG'."
)
INPUTS = (
    "The soup was cold, the waiter was rude, and we waited an hour for the bill.",
    "Bought this kettle a year ago and it still works like new. Best purchase ever!",
    "The film drags on for three hours and nobody in it is worth caring about.",
)


def run_demo() -> None:
    """Generate an adapter, try it, print the answers and write demo/demo.json."""
    folder = Path("demo")
    summary = produce(DESCRIPTION, folder / "adapter", attempts=INPUTS, overwrite=True)
    text = json.dumps(summary, indent=2, ensure_ascii=False) + "\n"
    write_file(folder / "demo.json", text.encode())
    print(f"\n{DESCRIPTION}\n\n{readable(summary)}")


if __name__ == "__main__":
    sys.exit(guarded(run_demo))
