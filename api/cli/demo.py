"""`make demo`: a description and five examples become an adapter; the base answers with it."""

import json
import sys
from pathlib import Path

from api.cli.console import guarded
from api.cli.generate import produce, readable
from library.files import write_file

DESCRIPTION = "Copy the order number out of the message and write nothing else."
EXAMPLES = (
    ("Hi, order A-4471 has not arrived.", "A-4471"),
    ("Please cancel number B-0093, thanks.", "B-0093"),
    ("What is the status of K-5512?", "K-5512"),
    ("I got the wrong colour in A-2210.", "A-2210"),
    ("M-7781 is missing one item.", "M-7781"),
)
INPUTS = (
    "Could you resend C-3310 to my new address?",
    "Regarding T-9004: refund please.",
    "order Z-1188 came broken",
    "I'd like to change R-6420.",
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
