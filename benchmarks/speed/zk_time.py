"""Costs of zero-knowledge proofs on a CPU: per module, and for a generated adapter's 60 modules.

    python benchmarks/speed/zk_time.py --out docs/results/zk-time.json

The adapter is made by the shipped text-to-lora for the default base (30 q_proj, 30 v_proj, rank 8).
Seconds are CPU seconds of ezkl's own processes unless they are called wall. The peer, in the same
run: ezkl's defaults, as ZKLoRA up to 0.2 uses them (public inputs and outputs, private weights),
with rows and scales as ezkl calibrates them, which is cheaper than the 2^20 rows of ZKLoRA.
About three minutes on two free cores; everything is written to a temporary folder.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

from verification.zk.backend import Backend, Srs, local_srs
from verification.zk.bundle import Bundle, prove_hashed, verify_hashed
from verification.zk.integers import hashed_row, product, tag
from verification.zk.manifest import Manifest, ModuleWeights, commit_adapter, read_weights
from verification.zk.proof import Owner, Statement

DESCRIPTION = "Decide whether the review is positive or negative. Answer with 'POS' or 'NEG'."
NONCE = "zk-time benchmark"
PEER_SHAPE = (576, 576, 8)


def processes(backend: Backend) -> list[int]:
    """Ids of a backend's processes that run."""
    children = [backend._idle.get() for _ in range(backend.workers)]
    for child in children:
        backend._idle.put(child)
    return [child._process.pid for child in children if child._process is not None]


def cpu_seconds(backend: Backend) -> float:
    """User and system time of a backend's processes so far."""
    ticks = 0
    for pid in processes(backend):
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1]
        ticks += sum(int(field) for field in after_name.split()[11:13])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_mib(backend: Backend) -> float:
    """The largest resident memory that one of a backend's processes has had."""
    status = (Path(f"/proc/{pid}/status").read_text(encoding="utf-8") for pid in processes(backend))
    lines = (line for text in status for line in text.splitlines() if line.startswith("VmHWM"))
    return max(int(line.split()[1]) for line in lines) / 1024


def measured(backend: Backend, run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """The result of `run`, with CPU seconds of ezkl's processes and wall seconds."""
    cpu, wall = cpu_seconds(backend), time.perf_counter()
    result = run()
    return result, {
        "cpu": round(cpu_seconds(backend) - cpu, 3),
        "wall": round(time.perf_counter() - wall, 3),
    }


def generate(folder: Path) -> None:
    """The shipped text-to-lora's adapter for the default base."""
    from generator.engine import open_engine
    from generator.request import Request
    from library.base.models import resolve_base
    from library.files import write_folder

    generated = open_engine().generate("text-to-lora", Request(DESCRIPTION), resolve_base())
    write_folder(folder, generated.files.files)


def one_module(name: str, w: ModuleWeights, srs: Srs, repeats: int) -> dict[str, Any]:
    """Setup once, then means of commit, prove and verify, in one process of one thread."""
    x = hashed_row("", name, NONCE, w.shape.in_features)
    statement = Statement("", name, NONCE, "", [x], product([x], w.a, w.b))
    with Backend(os.cpu_count()) as backend:  # as many as cores, so that each has one thread
        backend.plan([w.shape])  # starts a process and imports onnx
        keys, setup = measured(backend, lambda: backend.keys(w.shape, srs))
        files = {"folder": str(keys.folder), "srs": str(srs.path)}
        weights = {"a": w.a, "b": w.b}
        proving = {**files, **weights, "x": x, "tag": tag(statement.digest)}
        _, committing = mean(backend, repeats, lambda: backend.call("commit", **files, **weights))
        proved, prove = mean(backend, repeats, lambda: backend.call("prove", **proving))
        checking = {**files, "instances": statement.instances(), "proof": proved["proof"]}
        holds, verify = mean(backend, 10 * repeats, lambda: backend.call("verify", **checking))
        assert holds
        return {
            "shape": w.shape.numbers(),
            "setup": setup,
            "commit": committing,
            "prove": prove,
            "verify": verify,
            "proof_bytes": len(proved["proof"]) // 2,
            "vk_bytes": (keys.folder / "vk").stat().st_size,
            "pk_mib": round((keys.folder / "pk").stat().st_size / 2**20, 1),
            "peak_mib": round(peak_mib(backend), 1),
        }


def mean(backend: Backend, repeats: int, run: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """`measured` for `repeats` calls, per call; the kernel counts CPU in steps of 10 ms."""
    result, times = measured(backend, lambda: [run() for _ in range(repeats)][-1])
    return result, {kind: round(value / repeats, 4) for kind, value in times.items()}


def whole_adapter(folder: Path) -> dict[str, Any]:
    """All modules, then four that a nonce selects, with as many processes as cores."""
    with Backend() as backend:
        manifest, committing = measured(backend, lambda: commit_adapter(folder, backend))
        srs = local_srs(manifest.srs_logrows)
        owner = Owner(folder, manifest, srs, backend)
        report: dict[str, Any] = {"processes": backend.workers, "commit": committing}
        for label, count in (("all", None), ("four", 4)):
            bundle, proving = measured(backend, lambda c=count: prove_hashed(owner, NONCE, c))
            proof_report, verifying = measured(
                backend,
                lambda c=count, b=bundle: verify_hashed(manifest, b, NONCE, c, srs, backend),
            )
            assert proof_report.verdict == "accept"
            report[label] = {
                "modules": len(proof_report.proved),
                "prove": proving,
                "verify": verifying,
                "proof_bytes": sum(len(module.proof) // 2 for module in bundle.modules),
                "file_bytes": len(bundle.to_bytes()),
            }
            if count is None:
                report["relative_error"] = relative_error(folder, manifest, bundle)
        report["largest_weight_difference"] = manifest.largest_difference
        report["manifest_bytes"] = len(manifest.to_bytes())
        return report


def relative_error(folder: Path, manifest: Manifest, bundle: Bundle) -> float:
    """The worst module's proved output against float64 on the stored weights."""
    import torch

    from library.peft.read import read_peft

    adapter, worst = read_peft(folder), 0.0
    proved = {module.name: module.y for module in bundle.modules}
    for site in adapter.layout.sites:
        a, b = (factor[0].double() for factor in adapter.site(site))
        row = hashed_row(manifest.digest, site.name, NONCE, site.in_features)
        expected = (torch.tensor(row).double() / 2**24) @ a.T @ b.T
        value = torch.tensor([int(v) / 2.0**72 for v in proved[site.name]], dtype=torch.float64)
        worst = max(worst, float((value - expected).norm() / expected.norm()))
    return worst


def peer() -> dict[str, Any]:
    """ezkl as ZKLoRA calls it, on one module; run in a process of its own with one thread."""
    import resource

    import ezkl as typed
    import numpy as np

    from verification.zk.child import _model

    ezkl: Any = typed
    inputs, outputs, rank = PEER_SHAPE
    g = np.random.default_rng(0)
    a = (g.uniform(-1, 1, (rank, inputs)) / inputs**0.5 * 2**24).astype(int).tolist()
    b = (g.standard_normal((outputs, rank)) * 0.02 * 2**24).astype(int).tolist()
    x = g.standard_normal(inputs).round(6)
    report: dict[str, Any] = {"shape": [*PEER_SHAPE]}
    with tempfile.TemporaryDirectory() as folder:

        def path(name: str) -> str:
            return str(Path(folder) / name)

        def step(label: str, name: str, **arguments: Any) -> None:
            cpu, wall = time.process_time(), time.perf_counter()
            getattr(ezkl, name)(**arguments)
            report[label] = {
                "cpu": round(time.process_time() - cpu, 3),
                "wall": round(time.perf_counter() - wall, 3),
            }

        _model(Path(path("model")), a, b)
        Path(path("input")).write_text(json.dumps({"input_data": [x.tolist(), [0.0, 0.0]]}))
        run = ezkl.PyRunArgs()
        run.input_visibility = run.output_visibility = "public"
        run.param_visibility = "private"
        model = {"model": path("model")}
        ezkl.gen_settings(**model, output=path("settings"), py_run_args=run)
        ezkl.calibrate_settings(
            data=path("input"), **model, settings=path("settings"), target="resources"
        )
        settings = json.loads(Path(path("settings")).read_text())
        report["logrows"] = settings["run_args"]["logrows"]
        report["scales"] = [settings["run_args"][f"{kind}_scale"] for kind in ("input", "param")]
        ezkl.compile_circuit(
            **model, compiled_circuit=path("circuit"), settings_path=path("settings")
        )
        srs = {"srs_path": path("srs")}
        step("srs", "gen_srs", **srs, logrows=report["logrows"])
        model, vk = {"model": path("circuit")}, {"vk_path": path("vk")}
        step("setup", "setup", **model, **vk, pk_path=path("pk"), **srs)
        step("witness", "gen_witness", data=path("input"), **model, output=path("witness"))
        proof = {"proof_path": path("proof")}
        step(
            "prove",
            "prove",
            witness=path("witness"),
            **model,
            pk_path=path("pk"),
            **proof,
            **srs,
        )
        step("verify", "verify", **proof, settings_path=path("settings"), **vk, **srs)
        proof_file = json.loads(Path(path("proof")).read_text())
    value = np.array([float(v) for v in proof_file["pretty_public_inputs"]["rescaled_outputs"][0]])
    expected = x @ (np.array(a).T / 2**24) @ (np.array(b).T / 2**24)
    report["proof_bytes"] = len(proof_file["proof"])
    report["relative_error"] = float(np.linalg.norm(value - expected) / np.linalg.norm(expected))
    report["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)
    report["weights_bound"] = False
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer", action="store_true", help="run the peer alone and print it")
    options = parser.parse_args()
    if options.peer:
        print(json.dumps(peer()))
        return
    if options.out is None:
        parser.error("--out is needed")
    with tempfile.TemporaryDirectory() as cache:
        folder = Path(cache) / "adapter"
        generate(folder)
        os.environ["LORASMITH_CACHE"] = os.environ["LORASMITH_DATA"] = cache
        report = measure(folder, options.repeats)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=1))


def measure(folder: Path, repeats: int) -> dict[str, Any]:
    weights, _ = read_weights(folder)
    with Backend(1) as backend:
        logrows, _ = backend.plan(list(dict.fromkeys(w.shape for w in weights.values())))
        srs, making = measured(backend, lambda: local_srs(logrows, backend))
        version = backend.version
    shapes = {module.shape: (name, module) for name, module in reversed(weights.items())}
    modules = {
        name.rsplit(".", 1)[-1]: one_module(name, module, srs, repeats)
        for name, module in shapes.values()
    }
    adapter = whole_adapter(folder)
    environment = {**os.environ, "RAYON_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--peer"]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    defaults = json.loads(done.stdout.splitlines()[-1])
    projection = modules["q_proj"]
    return {
        "command": "python benchmarks/speed/zk_time.py --out docs/results/zk-time.json",
        "machine": {
            "cpu": platform.processor() or platform.machine(),
            "cores": os.cpu_count(),
            "load_at_end": round(os.getloadavg()[0], 1),
        },
        "ezkl": version,
        "srs": {"logrows": logrows, "bytes": srs.path.stat().st_size, **making},
        "modules": modules,
        "adapter": adapter,
        "peer": defaults,
        "ratios": {
            step: round(defaults[step]["cpu"] / max(projection[step]["cpu"], 0.01), 1)
            for step in ("setup", "prove", "verify")
        },
    }


if __name__ == "__main__":
    main()
