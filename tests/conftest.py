"""Every annotated tensor shape in our packages is checked while the tests run."""

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["LORASMITH_DATA"] = tempfile.mkdtemp(prefix="lorasmith-tests-")  # not the user's
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models; more threads only get in the way

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

collect_ignore = ["ui"]  # needs a browser: `make test-ui`

_hook = install_import_hook(
    ["library", "index", "generator", "training", "verification"], "beartype.beartype"
)

# Reproducible, and never failed by a busy machine.
settings.register_profile("lorasmith", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("lorasmith")


LONGEST = (
    "test_e2e.py",
    "test_build.py",
    "test_executors.py",
    "test_training.py",
    "test_process.py",
    "test_any_process.py",
    "test_search.py",
    "test_trained.py",
    "test_distillation.py",
    "test_distillation_runs.py",
    "test_distillation_learns.py",
    "test_verify.py",
    "test_served.py",
    "test_install.py",
    "test_devices.py",
    "test_own_base.py",
    "test_add.py",
    "test_architectures.py",
)
GROWTH = 500_000_000  # bytes


def pytest_configure(config: pytest.Config) -> None:
    """Files go to pytest-xdist's workers in our order, not by their number of tests."""
    config.option.loadscopereorder = False
    config.pluginmanager.register(Garbage())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what loads the packaged encoder; begin with the files that take longest."""
    for item in items:
        if "encoder" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else 99)


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Garbage:
    """Models lie in reference cycles: frees those of earlier tests before they fill the memory."""

    def __init__(self) -> None:
        self.after_last = resident()

    def pytest_runtest_teardown(self) -> None:
        self.after_last = min(self.after_last, resident())
        if resident() > self.after_last + GROWTH:
            gc.collect()
            self.after_last = resident()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A running PostgreSQL."""
    from postgres import running

    with running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def catalogue_url(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> str | None:
    """Commands keep their catalogue in SQLite (None: by default), then in PostgreSQL (its URL)."""
    monkeypatch.delenv("LORASMITH_CATALOGUE", raising=False)
    monkeypatch.setenv("LORASMITH_CACHE", str(tmp_path / "cache"))
    if request.param == "sqlite":
        return None
    url = request.getfixturevalue("postgres").database()
    monkeypatch.setenv("LORASMITH_CATALOGUE", url)
    return url


@pytest.fixture(scope="session")
def encoder() -> Any:
    """The packaged description encoder, as it serves (float64)."""
    from index.encoders.descriptions import DescriptionEncoder

    return DescriptionEncoder()


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama with a vocabulary of 4,096, as a folder to load; its answers end."""
    import tiny

    folder = tmp_path_factory.mktemp("base")
    tiny.write_base(folder, end=5)  # every few words an end is the likeliest
    return folder


@pytest.fixture(scope="session")
def endless_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny base, but some other token is always likelier than the end of sequence."""
    import tiny

    folder = tmp_path_factory.mktemp("endless")
    tiny.write_base(folder, end=0)
    return folder


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """Text-to-LoRA for `tiny_base` with random weights everywhere, rank 4."""
    import tiny

    from generator.layers.config import TextToLoRAConfig
    from generator.models.text_to_lora import TextToLoRA
    from index.encoders.descriptions import DEFAULT_ENCODER
    from library.base.models import load_config, resolve_base
    from library.checkpoint import CheckpointInfo, save_checkpoint
    from library.layout import layout_of

    layout = layout_of(load_config(resolve_base(str(tiny_base))), rank=4)
    module = TextToLoRA(TextToLoRAConfig(384, latent=16, head_in=24, queries=2), layout)
    tiny.randomise(module, std=0.2)
    folder = tmp_path_factory.mktemp("checkpoint") / "small"
    base = {"id": "tiny", "sha256": None, "source": "random"}
    save_checkpoint(folder, module, CheckpointInfo(base, DEFAULT_ENCODER, ["seen"]))
    return folder


@pytest.fixture(scope="session")
def icm_checkpoint(tmp_path_factory: pytest.TempPathFactory, base: Any) -> Path:
    """ICM-LoRA for `tiny_base` with random weights and statistics, rank 3."""
    import tiny
    import torch

    from generator.models.icm_lora import ICMLoRA, ICMLoRAConfig
    from index.encoders.descriptions import DEFAULT_ENCODER
    from library.base.models import load_config
    from library.checkpoint import CheckpointInfo, save_checkpoint
    from library.layout import layout_of

    layout = layout_of(load_config(base), rank=3)
    module = ICMLoRA(ICMLoRAConfig(32, latent=8, channels=(4, 8, 4)), layout)
    module.prepare(tiny.adapter(layout, 4), torch.randn(4, 32))
    tiny.randomise(module, std=0.2)
    info = CheckpointInfo({"id": "tiny", "sha256": None, "source": "random"}, DEFAULT_ENCODER)
    folder = tmp_path_factory.mktemp("icm") / "icm-lora"
    save_checkpoint(folder, module, info, storage="int8")
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text-to-LoRA for the offline default base with random weights everywhere, rank 8."""
    import tiny

    from generator.layers.config import TextToLoRAConfig
    from generator.models.text_to_lora import TextToLoRA
    from index.encoders.descriptions import DEFAULT_ENCODER
    from library.base.models import identity, load_config, resolve_base
    from library.checkpoint import CheckpointInfo, save_checkpoint
    from library.layout import layout_of

    base = resolve_base()
    config = TextToLoRAConfig(384, latent=16, head_in=24, queries=2, words_dim=384, reader_dim=16)
    module = TextToLoRA(config, layout_of(load_config(base)))
    tiny.randomise(module, std=0.1)
    sha256, source = identity(base)
    info = CheckpointInfo({"id": base.name, "sha256": sha256, "source": source}, DEFAULT_ENCODER)
    folder = tmp_path_factory.mktemp("checkpoint") / "default"
    save_checkpoint(folder, module, info)
    return folder


@pytest.fixture(scope="session")
def small_library(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A folder with `tasks`, three of them, and `lib`, a library of their adapters of rank 4."""
    import tiny

    from api.cli.main import main

    folder = tmp_path_factory.mktemp("shelf")
    tiny.write_tasks(folder / "tasks", tiny.LIBRARY_TASKS)
    build = ["library", "build", "--tasks", str(folder / "tasks"), "--base", str(tiny_base)]
    assert main([*build, "--out", str(folder / "lib"), "--steps", "4", "--rank", "4"]) == 0
    return folder


@pytest.fixture(scope="session")
def snapshot_library(
    small_library: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A library of the same tasks, two adapters of rank 2 for each and three snapshots of each."""
    from api.cli.main import main

    out = str(tmp_path_factory.mktemp("snapshots") / "lib")
    build = ["library", "build", "--tasks", str(small_library / "tasks"), "--base", str(tiny_base)]
    more = ["--steps", "12", "--rank", "2", "--variants", "2", "--snapshots", "3"]
    assert main([*build, *more, "--out", out]) == 0
    return out


@pytest.fixture(scope="session")
def generator(small_checkpoint: Path) -> Any:
    """The small checkpoint, loaded."""
    from generator.engine import read_generator

    return read_generator(small_checkpoint)


@pytest.fixture(scope="session")
def alone(generator: Any, encoder: Any) -> Any:
    """An engine over that generator, without a library."""
    from generator.engine import Engine
    from generator.resources import Resources

    return Engine([generator], Resources(encoders=[encoder]))


@pytest.fixture(scope="session")
def several(multi_task: Path, generator: Any, small_library: Path, encoder: Any) -> Any:
    """An engine that has everything."""
    from generator.engine import Engine
    from generator.resources import Resources
    from library.store.open import open_library

    library = open_library(str(small_library / "lib"))
    return Engine([generator], Resources(library, encoders=[encoder]), multi_task=[multi_task])


@pytest.fixture(scope="session")
def engine(generator: Any, small_library: Path, encoder: Any) -> Any:
    """An engine over that generator and the small library."""
    from generator.engine import Engine
    from generator.resources import Resources
    from library.store.open import open_library

    library = open_library(str(small_library / "lib"))
    return Engine([generator], Resources(library, encoders=[encoder]))


@pytest.fixture(scope="session")
def base(tiny_base: Path) -> Any:
    """The tiny base by its name."""
    from library.base.models import resolve_base

    return resolve_base(str(tiny_base))


@pytest.fixture(scope="session")
def multi_task(base: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the multi-task adapter for the tiny base.

    It answers "row 0" to "row 11" with yes or no, or nearly, after "Say yes or no."
    """
    from generator.refine.training import Refinement, RefineSettings, example_rows, refine_adapters
    from library.base.models import load_base
    from library.base.usage import Usage
    from library.files import write_folder
    from library.layout import layout_of
    from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
    from library.tasks.files import Example
    from library.trainer.optimiser import shared_start

    loaded = load_base(base)
    examples = [Example.pair(f"row {i}", "yes" if i % 3 else "no") for i in range(12)]
    rows = example_rows(loaded, examples, Usage.of("prompted", "Say yes or no."))
    layout = layout_of(loaded.model.config, rank=6)
    job, many = Refinement(shared_start(layout, 1), rows), RefineSettings(80, 1e-2, len(rows))
    (trained,) = refine_adapters(loaded, layout, [job], many)
    target = tmp_path_factory.mktemp("multi") / "task"
    peft = to_peft(trained.adapter, base_name=base.name)
    write_folder(target, {CONFIG_FILE: peft.config_bytes, WEIGHTS_FILE: peft.weights})
    return target
