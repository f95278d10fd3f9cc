"""`pip install .` into an environment of its own, then the command from an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import tiny

COPIED = (
    "api", "configs", "generator", "index", "library", "lorasmith", "pretrained", "training",
    "verification",
)  # fmt: skip


def run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with lorasmith installed from a copy of the sources.

    Its dependencies are this environment's, so that nothing is fetched; a path in a .pth file does
    not bring in the editable install.
    """
    folder = tmp_path_factory.mktemp("install")
    source = folder / "source"
    source.mkdir()
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(tiny.ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(tiny.ROOT / name, source)
    return installed(folder, source)


def installed(folder: Path, source: Path) -> Path:
    """A virtual environment in a folder with what a source makes, and nothing fetched."""
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "env" / "lib" / version / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    flags = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    run(sys.executable, "-m", "pip", "--python", python, "install", *flags, source)
    return folder / "env"


@pytest.mark.slow
def test_the_installed_command_works_from_an_empty_folder(
    environment: Path, checkpoint: Path, tmp_path: Path
) -> None:
    own = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = environment / "bin" / "lorasmith"
    arguments = ["generate", "Say it backwards.", "--out", "a", "--json"]
    out = run(command, *arguments, "--checkpoint", checkpoint, cwd=tmp_path, env=own)
    made = json.loads(out)
    assert {file.name for file in (tmp_path / "a").iterdir()} == {
        "README.md", "adapter_config.json", "adapter_model.safetensors", "provenance.json"
    }  # fmt: skip
    assert made["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.mark.slow
def test_package_data_is_installed(environment: Path, tmp_path: Path) -> None:
    code = (
        "import api, configs, pretrained, library, pathlib\n"
        "packages = (api, configs, pretrained, library)\n"
        "print(*(str(pathlib.Path(package.__file__).parent) for package in packages))"
    )
    places = run(environment / "bin" / "python", "-c", code, cwd=tmp_path).split()
    assert all(place.startswith(str(environment)) for place in places)
    kinds = (".yaml", ".json", ".safetensors", ".md", ".csv", ".css", ".js", ".jinja", ".svg")
    for name in ("api", "configs", "pretrained", "library"):
        sources = {
            file.relative_to(tiny.ROOT / name)
            for file in (tiny.ROOT / name).rglob("*")
            if file.is_file() and file.suffix in kinds
        }
        assert all((Path(places[0]).parent / name / file).is_file() for file in sources)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "package"), [("client", "lorasmith_client"), ("plugins/vllm", "lorasmith_vllm")]
)
def test_a_distribution_of_its_own_is_installed(folder: str, package: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny.ROOT / folder, source)
    python = installed(tmp_path, source) / "bin" / "python"
    own = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    code = (
        f"import sys; sys.path.append({str(tiny.ROOT / 'client')!r})\n"  # which the plugin needs
        f"import {package} as p; print(*p.__path__)"
    )
    (place,) = run(python, "-c", code, cwd=tmp_path, env=own).split()
    assert place.startswith(str(tmp_path / "env"))
    files = [file.name for file in (tiny.ROOT / folder / package).iterdir() if file.is_file()]
    assert sorted(file.name for file in Path(place).iterdir() if file.is_file()) == sorted(files)
