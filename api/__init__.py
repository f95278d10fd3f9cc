"""The edges: command line and REST. They check input, call `generator`, and report.

Lives here: commands, HTTP, settings, the store of served adapters. Does not: anything that makes or
judges an adapter.
"""

import importlib.util
import sys
from pathlib import Path

OURS = (
    "configs",
    "generator",
    "index",
    "library",
    "lorasmith",
    "pretrained",
    "training",
    "verification",
)


def entry() -> None:
    """The console script: refuse to start among foreign packages of our names, then run."""
    foreign = shadowing()
    if foreign:
        sys.exit(f"lorasmith: {foreign} hides our package of that name; rename or move it")
    try:
        from api.cli.main import main
    except KeyboardInterrupt:  # before `main` can answer it
        print("lorasmith: interrupted", file=sys.stderr)
        sys.exit(130)
    sys.exit(main())


def shadowing() -> Path | None:
    """A foreign package that Python would import instead of ours, if there is one."""
    home = Path(__file__).parent.parent
    for name in OURS:
        spec = importlib.util.find_spec(name)
        locations = [*(spec.submodule_search_locations or ()), spec.origin] if spec else []
        if locations and Path(str(locations[0])) != home / name:
            return Path(str(locations[0]))
    return None
