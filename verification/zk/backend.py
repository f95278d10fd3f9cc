"""ezkl from our side: child processes, the SRS, and keys that are derived here and cached.

Keys depend on a shape and an SRS alone, so each side derives its own and takes none from another.
They lie whole under `$LORASMITH_CACHE/zk/keys/<digest>`.
"""

import json
import os
import queue
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from library.canonical import file_digest, json_digest
from library.errors import MissingPath, OutputExists, UsageError
from library.files import cache_dir, write_folder
from verification.artifact import ShareProgress
from verification.zk.errors import MissingExtra, ProofFileError, ProverError, TooLarge
from verification.zk.integers import PROTOCOL

BACKEND = "ezkl"
CHILD = Path(__file__).with_name("child.py")
SRS_NAME = "kzg.srs"
MIN_LOGROWS, MAX_LOGROWS = 6, 20
PAUSE = 0.25  # seconds between two looks at whether a call is still wanted
_KEY_FILES = ("settings.json", "pk", "vk")


@dataclass(frozen=True)
class Shape:
    """The numbers that a circuit depends on."""

    in_features: int
    out_features: int
    rank: int

    def numbers(self) -> list[int]:
        return [self.in_features, self.out_features, self.rank]


@dataclass(frozen=True)
class Srs:
    """A structured reference string of 2^logrows points, by its file."""

    path: Path
    sha256: str
    logrows: int


@dataclass(frozen=True)
class Keys:
    """Settings, proving and verification key of one shape under one SRS.

    Attributes:
        folder: where they lie.
        vk_sha256: of the verification key.
        points: how many commitments begin a proof.
        proof_bytes: how long a proof is.
    """

    folder: Path
    vk_sha256: str
    points: int
    proof_bytes: int


def require_ezkl() -> str:
    """ezkl's version. Raises MissingExtra, which names the extra."""
    if find_spec("ezkl") is None or find_spec("onnx") is None:
        raise MissingExtra(
            "zero-knowledge proofs need ezkl and onnx, the extra zk: pip install 'lorasmith[zk]'"
        )
    return metadata.version("ezkl")


class Backend:
    """Processes of ezkl, started when they are needed; use it in a `with` block.

    Args:
        workers: how many; one a core if None.
        still: called every PAUSE seconds while ezkl works, from any thread; what it raises ends the
            call and kills its process.
    """

    def __init__(
        self, workers: int | None = None, still: Callable[[], None] = lambda: None
    ) -> None:
        self.version = require_ezkl()
        self.workers = workers or os.cpu_count() or 1
        self._idle: queue.LifoQueue[_Child] = queue.LifoQueue()
        self._threads = max(1, (os.cpu_count() or 1) // self.workers)
        for _ in range(self.workers):
            self._idle.put(_Child(self._threads, still))

    def __enter__(self) -> "Backend":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes once they are idle."""
        for _ in range(self.workers):
            self._idle.get().close()

    def call(self, name: str, **arguments: Any) -> Any:
        """One of the calls of child.py. Raises ProverError if it fails."""
        child = self._idle.get()
        try:
            return child.ask({"call": name, **arguments})
        finally:
            self._idle.put(child)

    def each(
        self,
        action: Callable[[Any], Any],
        items: Sequence[Any],
        progress: ShareProgress = lambda share: None,
    ) -> list[Any]:
        """`action` on every item, as many at a time as there are processes; in order.

        Args:
            progress: called with the share that is done after each item.
        """
        results = []
        with ThreadPoolExecutor(self.workers) as pool:
            for result in pool.map(action, items):
                results.append(result)
                progress(len(results) / len(items))
        return results

    def plan(self, shapes: Sequence[Shape], logrows: int | None = None) -> tuple[int, list[int]]:
        """Log2 of the rows that circuits of these shapes share, and the columns of each.

        Raises TooLarge if a shape does not fit into 2^logrows rows.
        """
        numbers = [shape.numbers() for shape in shapes]
        if any((inputs + outputs) * rank >> MAX_LOGROWS + 2 for inputs, outputs, rank in numbers):
            raise TooLarge("modules of more than four million weights are not proved")
        circuits = self.call("plan", shapes=numbers, logrows=logrows)
        if circuits["logrows"] > MAX_LOGROWS or 0 in circuits["columns"]:
            raise TooLarge(
                f"an SRS of 2^{circuits['logrows']} points is too small for modules of this size"
            )
        return max(circuits["logrows"], MIN_LOGROWS), circuits["columns"]

    def keys(self, shape: Shape, srs: Srs) -> Keys:
        """The keys of a shape, made once. Raises ProverError, TooLarge, ProofFileError."""
        about = [PROTOCOL, BACKEND, self.version, shape.numbers(), srs.sha256]
        folder = cache_dir() / "zk" / "keys" / json_digest(about)
        if not (folder / "keys.json").is_file():
            self._make_keys(shape, srs, folder)
        try:
            keys = Keys(folder, **json.loads((folder / "keys.json").read_bytes()))
            if file_digest(folder / "vk") != keys.vk_sha256:
                raise ValueError("another verification key")
        except (OSError, ValueError, TypeError) as error:
            raise ProofFileError(
                f"{folder} is damaged ({error}); delete it, and new keys are made"
            ) from error
        return keys

    def _make_keys(self, shape: Shape, srs: Srs, folder: Path) -> None:
        _, (columns,) = self.plan([shape], srs.logrows)
        with tempfile.TemporaryDirectory() as work:
            record = self.call(
                "keys",
                shape=shape.numbers(),
                logrows=srs.logrows,
                columns=columns,
                srs=str(srs.path),
                folder=work,
            )
            files = {name: (Path(work) / name).read_bytes() for name in _KEY_FILES}
            record["vk_sha256"] = file_digest(Path(work) / "vk")
        files["keys.json"] = json.dumps(record, sort_keys=True).encode()
        with suppress(OutputExists):  # another process was first
            write_folder(folder, files)


def read_srs(path: Path) -> Srs:
    """An SRS file. Raises MissingPath, or ProofFileError if its size is not that of its points."""
    if not path.is_file():
        raise MissingPath(f"there is no SRS file at {path}")
    with path.open("rb") as file:
        logrows = int.from_bytes(file.read(4), "little")
    points = 1 << min(logrows, 63)  # twice 64 bytes each, then two of the second group
    if not MIN_LOGROWS <= logrows <= MAX_LOGROWS or path.stat().st_size != 4 + 128 * points + 256:
        raise ProofFileError(f"{path} is not an SRS file")
    return Srs(path, file_digest(path), logrows)


def local_srs(logrows: int, backend: Backend | None = None) -> Srs:
    """This machine's own SRS: it convinces nobody elsewhere.

    With a backend it is made when it is first needed. Without, raises ProofFileError if it is not
    there: what was committed to under another SRS cannot be checked under a new one.
    """
    folder = cache_dir() / "zk" / f"srs-{logrows}"
    if not (folder / SRS_NAME).is_file():
        if backend is None:
            raise ProofFileError("this machine has made no such SRS; give its file with --srs")
        with suppress(OutputExists):
            write_folder(folder, {SRS_NAME: new_srs(backend, logrows)})
    return read_srs(folder / SRS_NAME)


def new_srs(backend: Backend, logrows: int) -> bytes:
    """A new SRS; whoever runs this could keep its secret, so the verifier does, or a ceremony."""
    if not MIN_LOGROWS <= logrows <= MAX_LOGROWS:
        raise UsageError(f"logrows must be from {MIN_LOGROWS} to {MAX_LOGROWS}, not {logrows}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / SRS_NAME
        backend.call("srs", path=str(path), logrows=logrows)
        return path.read_bytes()


class _Child:
    """One process of child.py, started by its first request."""

    def __init__(self, threads: int, still: Callable[[], None]) -> None:
        self._still = still
        self._environment = {**os.environ, "RAYON_NUM_THREADS": str(threads)}
        self._process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, Any]) -> Any:
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            while not wait([process.stdout.fileno()], PAUSE):
                self._still()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        except BaseException:  # nobody will read the answer
            process.kill()
            self.close()
            raise
        if not line:
            self.close()
            raise ProverError(f"ezkl's process ended during '{request['call']}'")
        answer = json.loads(line)
        if "error" in answer:
            raise ProverError(f"ezkl failed in '{request['call']}': {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _started(self) -> "subprocess.Popen[str]":
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(CHILD)],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        return self._process
