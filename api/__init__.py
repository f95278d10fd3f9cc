"""The edges: command line and REST. They check input, call `generator`, and report.

Lives here: commands, HTTP, settings, the store of served adapters. Does not: anything that makes or
judges an adapter.
"""

import importlib.util
import sys
from pathlib import Path

OURS = ("configs", "generator", "index", "library", "pretrained", "training")


def entry() -> None:
    """The console script: refuse to start among foreign packages of our names, then run."""
    foreign = shadowing()
    if foreign:
        sys.exit(f"lorasmith: {foreign} hides our package of that name; rename or move it")
    try:
        from api.cli.main import main
    except KeyboardInterrupt:  # torch takes a second or two to import
        print("lorasmith: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(main())


def shadowing() -> Path | None:
    """A package on the path that Python would take instead of ours; None if all is well."""
    home = Path(__file__).parent.parent
    for name in OURS:
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or []) if spec else []
        found = Path(places[0]) if places else Path(spec.origin) if spec and spec.origin else home
        if found != home / name:
            return found
    return None
