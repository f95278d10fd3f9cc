"""Write the manifest from which `lorasmith tasks import --sni` rebuilds our task files.

    python benchmarks/cards/sni_manifest.py TASKS library/tasks/sni_data

TASKS holds index.csv, index_extra.csv and the folders train, train_extra and public_heldout.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from library.files import write_folder
from library.tasks.sni_manifest import make_manifest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    files = make_manifest(options.tasks)
    write_folder(options.out, files, overwrite=True)
    print(f"{sum(map(len, files.values())):,} bytes in {options.out}")


if __name__ == "__main__":
    main()
