"""Does `verify --served` tell which adapter answers? Planted faults, and its verdicts on them.

    OMP_NUM_THREADS=1 python -m benchmarks.quality.served_check --descriptions DIR \
        --out docs/results/served-check.json

The shipped text-to-lora makes an adapter of each of DIR's first descriptions (`*.txt`). Each is
checked against the service of this package, over HTTP, that answers by it or by what a fault makes
of it; the service has the base in bfloat16, as most servers have, and in float32, as the check has
it. What was asked or predicted for an adapter is remembered, so that a service is asked
the same thing once. A verdict is right if its code is, and the
strength (within 5 %) or the layer, which is another one for each adapter. The report is written
anew after every adapter.
"""

import argparse
import json
import math
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import uvicorn
from torch import Tensor

from api.http.app import create_app
from api.service.service import Service
from api.service.settings import Settings
from api.service.store import GENERATED, LOCAL
from generator.engine import Engine, open_engine
from generator.models.text_to_lora import TextToLoRA
from generator.request import Request
from generator.resources import Resources
from library.adapter import Adapter
from library.base.models import load_base, resolve_base
from library.canonical import digest
from library.files import write_file
from library.peft.write import CONFIG_FILE, WEIGHTS_FILE, to_peft
from verification.artifact import Artifact
from verification.scores.served import check_served
from verification.scores.served_contexts import Predictions
from verification.scores.served_fit import without
from verification.scores.served_server import CompletionServer, NextTokens

Files = dict[str, bytes]
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
WITHIN = 0.05  # of a strength


@dataclass(frozen=True)
class Planted:
    """A fault: the adapter that is checked, what is served as it, and the verdict that is right."""

    name: str
    checked: Files
    served: Files | None  # None: the base alone
    code: str
    strength: float | None = None
    missing: str | None = None

    def is_found(self, code: str, evidence: Mapping[str, Any]) -> bool:
        if code != self.code or evidence["missing"] != self.missing:
            return False
        return self.strength is None or abs(evidence["strength"] / self.strength - 1) < WITHIN


def planted(adapter: Adapter, other: Adapter, layer: int) -> list[Planted]:
    """Every fault of the table, for one adapter."""
    own, rank = portable(adapter), adapter.layout.rank
    config = json.loads(own[CONFIG_FILE])
    # The same factors at the scale 1, by rsLoRA's rule; who drops it applies them at 1 / √r.
    root = {**config, "use_rslora": True, "lora_alpha": math.sqrt(rank)}
    dropped = {**root, "use_rslora": False}
    partial_ = without(adapter, lambda site: site.depth == layer)
    return [
        Planted("none", own, own, "served-this", 1.0),
        Planted("no adapter", own, None, "served-base", None),
        Planted("other adapter", own, portable(other), "served-other"),
        Planted("strength × 2", own, portable(adapter.scaled(2.0)), "served-strength", 2.0),
        Planted(
            "rsLoRA scale dropped", with_config(own, root), with_config(own, dropped),
            "served-strength", rank**-0.5,
        ),
        Planted(
            "one layer missing", own, portable(partial_), "served-partial", None, f"layer {layer}"
        ),
    ]  # fmt: skip


def portable(adapter: Adapter) -> Files:
    peft = to_peft(adapter, base_name=resolve_base().name)
    return {CONFIG_FILE: peft.config_bytes, WEIGHTS_FILE: peft.weights}


def with_config(files: Files, config: dict[str, Any]) -> Files:
    return {**files, CONFIG_FILE: json.dumps(config).encode()}


def generated(engine: Engine, descriptions: list[str]) -> list[Adapter]:
    """What text-to-lora makes of each, without a layout's order."""
    base = resolve_base()
    made = (engine.propose(TextToLoRA.kind, Request(text), base).adapter for text in descriptions)
    return [adapter.to(dtype=torch.float32) for adapter in made]


@contextmanager
def serving(dtype: str, folder: Path) -> Iterator[tuple[Service, str]]:
    """The service with a base of some dtype, and its URL."""
    engine = Engine([], Resources(load=partial(load_base, dtype=DTYPES[dtype])))
    service = Service(Settings(data=folder), engine)
    server = uvicorn.Server(uvicorn.Config(create_app(service), log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield service, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Remembering(CompletionServer):
    """A server whose answers are kept."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._kept: dict[tuple[str, str], NextTokens] = {}

    def next_tokens(self, model: str, prompt: str) -> NextTokens:
        if (model, prompt) not in self._kept:
            self._kept[model, prompt] = super().next_tokens(model, prompt)
        return self._kept[model, prompt]


class RememberedPredictions(Predictions):
    """Predictions that are kept until `forget`."""

    def forget(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def under(self, adapter: Adapter) -> Tensor:
        key = digest(b"".join(factor.numpy().tobytes() for factor in adapter.factors()))
        if key not in self._kept:
            self._kept[key] = super().under(adapter)
        return self._kept[key]


def checked(
    fault: Planted, service: Service, server: CompletionServer, local: Predictions
) -> dict[str, Any]:
    """The verdict on one fault."""
    name = model = local.base.reference.name
    if fault.served is not None:
        identity = f"ad_{digest(b''.join(fault.served.values()))[:40]}"
        service.store.put(LOCAL, {"id": identity, "base_model": name}, fault.served)
        model = f"{GENERATED}{identity}"
    finding = check_served(server, model, name, local, Artifact(fault.checked))
    kept = {key: finding.evidence[key] for key in ("strength", "missing", "explained", "noise")}
    right = fault.is_found(finding.code, finding.evidence)
    return {"fault": fault.name, "right": right, "code": finding.code, **kept}


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By dtype and fault: how many verdicts are right, and which codes were given."""
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        cells.setdefault((row["dtype"], row["fault"]), []).append(row)
    return [
        {
            "dtype": dtype, "fault": fault, "right": sum(row["right"] for row in cell),
            "of": len(cell), "codes": sorted({row["code"] for row in cell}),
        }
        for (dtype, fault), cell in cells.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--descriptions", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    o = parser.parse_args()
    torch.set_num_threads(1)
    files = [f for f in sorted(o.descriptions.glob("*.txt")) if f.suffixes == [".txt"]][: o.count]
    texts = [file.read_text(encoding="utf-8").strip() for file in files]
    adapters = generated(open_engine(), texts)
    local, rows = RememberedPredictions(load_base(resolve_base())), []
    command = " ".join(["python", "-m", "benchmarks.quality.served_check", *sys.argv[1:]])
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        services = {d: stack.enter_context(serving(d, Path(folder) / d)) for d in DTYPES}
        servers = {dtype: Remembering(url) for dtype, (_, url) in services.items()}
        for number, (file, adapter) in enumerate(zip(files, adapters, strict=True)):
            local.forget()
            layers = sorted({site.depth for site in adapter.layout.sites})
            faults = planted(adapter, adapters[number - 1], layers[7 * number % len(layers)])
            for dtype, fault in product(DTYPES, faults):
                row = checked(fault, services[dtype][0], servers[dtype], local)
                rows.append({"dtype": dtype, "description": file.stem, **row})
                print(json.dumps(rows[-1]), flush=True)
            report = {"command": command, "table": table(rows), "rows": rows}
            write_file(o.out, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
