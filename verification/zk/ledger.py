"""The ledger of an owner's answers: enough of them reveal ΔW, whatever the proof system.

Every answered row x gives away ΔW·x. From as many independent rows as the rank, all outputs of the
module are known up to a matrix of rank × rank (the span of B); from `in` rows, ΔW itself; and a row
of large numbers can hold several columns of ΔW (`integers.columns`). So the owner counts columns
a module, over all verifiers, who may be one; the count is written before an answer leaves.
"""

import json
from collections.abc import Mapping

from filelock import FileLock

from library.canonical import json_digest
from library.files import data_dir, write_file
from verification.zk.errors import ProofFileError, ProofLimit
from verification.zk.integers import integers_digest
from verification.zk.manifest import ModuleWeights


class Ledger:
    """Columns given away of one adapter, kept under `$LORASMITH_DATA/zk`.

    It goes by the weights themselves: another manifest, file or SRS does not start it anew.

    Args:
        limit: columns a module; one less than its rank if None (at least one).
    """

    def __init__(self, weights: Mapping[str, ModuleWeights], limit: int | None = None) -> None:
        parts = {name: [integers_digest(w.a), integers_digest(w.b)] for name, w in weights.items()}
        self._path = data_dir() / "zk" / f"{json_digest(parts)}.json"
        self._lock = FileLock(self._path.with_suffix(".lock"))
        self._limits = {
            name: max(1, w.shape.rank - 1) if limit is None else limit
            for name, w in weights.items()
        }

    def charge(self, columns: Mapping[str, int]) -> None:
        """Count columns by module, all or none.

        Raises ProofLimit if a module would exceed its limit, and as `spent`.
        """
        with self._lock:  # one process at a time
            spent = self.spent()
            for name, count in columns.items():
                remaining = max(0, self._limits[name] - spent.get(name, 0))
                if count > remaining:
                    raise ProofLimit(
                        f"the owner gives away {remaining} more columns of {name}, not {count}: "
                        f"its limit is {self._limits[name]}"
                    )
            total = {name: spent.get(name, 0) + columns.get(name, 0) for name in self._limits}
            write_file(self._path, json.dumps(total, sort_keys=True).encode())

    def spent(self) -> dict[str, int]:
        """Columns given away so far, by module. Raises ProofFileError if the file is damaged."""
        try:
            spent = json.loads(self._path.read_bytes())
            if not all(type(count) is int and count >= 0 for count in spent.values()):
                raise ValueError("not counts")
        except FileNotFoundError:
            return {}
        except (ValueError, AttributeError, RecursionError) as error:
            file = f"zk/{self._path.name} under $LORASMITH_DATA"
            raise ProofFileError(f"{file}, the count of answers, is damaged") from error
        return spent
