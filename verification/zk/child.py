"""The process that talks to ezkl: one JSON request a line on stdin, one answer a line on stdout.

ezkl holds the interpreter's lock while it works and may end its process when it fails, so it runs
nowhere else. This file imports none of our packages: it is run by its path and starts at once.

The circuit is Y = X·Aᵀ·Bᵀ over integers (values times 2²⁴, no rescaling), with X and Y public and
A and B bound by KZG commitments, which are the first points of a proof (Kate, Zaverucha, Goldberg
2010). A second public input, `tag`, is doubled: it has no other purpose than to stand in the
transcript, so that a proof belongs to one statement.
"""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

FRACTION_BITS = 24
MAX_COLUMNS, CHEAP_COLUMNS = 16, 4
SCALAR_FIELD = 0x30644E72E131A029B85045B68181585D2833E84879B9709143E1F593F0000001  # BN254
SPARE_ROWS = 10  # halo2 blinds the last rows of each column; ezkl itself asks for six
Rows = list[list[int]]


def answer_requests() -> None:
    """Answer until stdin ends; whatever ezkl prints goes to stderr."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C does not wait for ezkl
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"result": CALLS[request.pop("call")](**request)}
        except BaseException as error:  # a panic of ezkl's is no Exception
            answer = {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
        print(json.dumps(answer), file=answers, flush=True)


def plan(shapes: list[list[int]], logrows: int | None) -> dict[str, Any]:
    """Circuits for shapes [in, out, rank]: log2 of the rows, one for all, and columns of each.

    Without `logrows`, the cheapest for the largest shape: cost grows with columns times rows. One
    number of rows for all takes one SRS; cutting a longer one costs seconds in each call.
    """
    rows = {tuple(shape): _rows(shape) for shape in shapes}
    if logrows is None:
        largest = rows[max(rows, key=lambda shape: rows[shape][0])]
        logrows = min(
            (columns << _bits(needed), _bits(needed))
            for columns, needed in enumerate(largest[:CHEAP_COLUMNS], start=1)
        )[1]
    fitting = [
        next((i for i, needed in enumerate(rows[tuple(s)], start=1) if _bits(needed) <= logrows), 0)
        for s in shapes
    ]
    return {"logrows": logrows, "columns": fitting}


def keys(shape: list[int], logrows: int, columns: int, srs: str, folder: str) -> dict[str, int]:
    """Write settings, pk and vk of a shape into `folder`; prove and verify once with them.

    The weights are made up: with polynomial commitments the keys depend on the shape alone.
    """
    path = Path(folder)
    ones, x = _made_up(shape), [1] * shape[0]
    _settings(path, shape, columns, logrows)
    with tempfile.TemporaryDirectory() as inner:
        circuit = _compile(Path(inner), path / "settings.json", *ones)
        vk, pk = str(path / "vk"), str(path / "pk")
        _ezkl().setup(model=circuit, vk_path=vk, pk_path=pk, srs_path=srs)
    trial = prove(folder, srs, *ones, x, [0, 0])
    if not is_valid(folder, srs, trial["instances"], trial["proof"]):
        raise ValueError("a proof with new keys does not hold: the SRS is damaged")
    points = len(commit(folder, srs, *ones))
    return {"points": points, "proof_bytes": len(trial["proof"]) // 2}


def srs(path: str, logrows: int) -> None:
    """Make an SRS of 2^logrows points from fresh randomness, whose secret this process forgets."""
    _ezkl().gen_srs(path, logrows)


def commit(folder: str, srs: str, a: Rows, b: Rows) -> list[str]:
    """Commitments to A `(rank, in)` and B `(out, rank)`: points as a proof holds them.

    That is x and y, 32 bytes each, big-endian, here in hex. ezkl gives them little-endian.
    """
    points = _ezkl().kzg_commit(
        message=[felt(value) for value in [*_flat(a), *_flat(b)]],
        vk_path=str(Path(folder) / "vk"),
        settings_path=str(Path(folder) / "settings.json"),
        srs_path=srs,
    )
    return [bytes.fromhex(p.x)[::-1].hex() + bytes.fromhex(p.y)[::-1].hex() for p in points]


def prove(folder: str, srs: str, a: Rows, b: Rows, x: list[int], tag: list[int]) -> dict[str, Any]:
    """Prove x·Aᵀ·Bᵀ for one row x; the proof in hex, and the instances that ezkl computed."""
    if len(a) in (1, len(a[0])) and _flat(a) == _flat(b):
        raise ValueError("ezkl cannot prove a module whose two factors hold the same numbers")
    with tempfile.TemporaryDirectory() as inner:
        witness = _witness(Path(inner), folder, srs, a, b, x, tag)
        proof_path = Path(inner) / "proof.json"
        _ezkl().prove(
            witness=witness,
            model=str(Path(inner) / "circuit"),
            pk_path=str(Path(folder) / "pk"),
            proof_path=str(proof_path),
            srs_path=srs,
        )
        proof = json.loads(proof_path.read_text(encoding="utf-8"))
    return {"proof": bytes(proof["proof"]).hex(), "instances": proof["instances"][0]}


def is_valid(folder: str, srs: str, instances: list[str], proof: str) -> bool:
    """Whether a proof holds for these instances (little-endian hex) under the keys in `folder`."""
    with tempfile.TemporaryDirectory() as inner:
        path = Path(inner) / "proof.json"
        content = {"instances": [instances], "proof": list(bytes.fromhex(proof))}
        path.write_text(json.dumps(content), encoding="utf-8")
        try:
            return _ezkl().verify(
                proof_path=str(path),
                settings_path=str(Path(folder) / "settings.json"),
                vk_path=str(Path(folder) / "vk"),
                srs_path=srs,
            )
        except RuntimeError:  # how ezkl says no
            return False


CALLS: dict[str, Any] = {
    "plan": plan,
    "keys": keys,
    "srs": srs,
    "commit": commit,
    "prove": prove,
    "verify": is_valid,
}


def _flat(rows: Rows) -> list[int]:
    """The transpose, row after row, as the circuit holds it."""
    return [value for column in zip(*rows, strict=True) for value in column]


def _ezkl() -> Any:
    """The module, untyped: its stubs lack defaults and attributes."""
    import ezkl

    return ezkl


def _rows(shape: list[int]) -> list[int]:
    """Rows that a shape needs with 1, 2, … inner columns; its instances stand in one column."""
    with tempfile.TemporaryDirectory() as folder:
        return [
            max(_settings(Path(folder), shape, n, None)["num_rows"], shape[0] + shape[1] + 4)
            + SPARE_ROWS
            for n in range(1, MAX_COLUMNS + 1)
        ]


def _bits(rows: int) -> int:
    return (rows - 1).bit_length()


def _settings(folder: Path, shape: list[int], columns: int, logrows: int | None) -> dict[str, Any]:
    ezkl = _ezkl()
    run = ezkl.PyRunArgs()
    run.input_visibility = run.output_visibility = "public"
    run.param_visibility = "polycommit"
    run.input_scale = run.param_scale = FRACTION_BITS
    run.num_inner_cols = columns
    run.scale_rebase_multiplier = 10  # never rescale: the identity is over integers
    run.ignore_range_check_inputs_outputs = True  # sound, as both are public
    run.disable_freivalds = True
    if logrows is not None:
        run.logrows = logrows
    model = _model(folder / "model.onnx", *_made_up(shape))
    ezkl.gen_settings(model=model, output=str(folder / "settings.json"), py_run_args=run)
    Path(model).unlink()
    return json.loads((folder / "settings.json").read_text(encoding="utf-8"))


def _made_up(shape: list[int]) -> tuple[Rows, Rows]:
    """A of ones and B of twos: where the two are alike, ezkl makes another circuit of them."""
    inputs, outputs, rank = shape
    return [[1] * inputs for _ in range(rank)], [[2] * rank for _ in range(outputs)]


def _compile(folder: Path, settings: Path, a: Rows, b: Rows) -> str:
    circuit = str(folder / "circuit")
    model = _model(folder / "model.onnx", a, b)
    _ezkl().compile_circuit(model=model, compiled_circuit=circuit, settings_path=str(settings))
    return circuit


def _witness(
    work: Path, folder: str, srs: str, a: Rows, b: Rows, x: list[int], tag: list[int]
) -> str:
    circuit = _compile(work, Path(folder) / "settings.json", a, b)
    witness, inputs_file = str(work / "witness.json"), work / "input.json"
    inputs = {"input_data": [[felt(v) for v in x], [felt(v) for v in tag]]}
    inputs_file.write_text(json.dumps(inputs), encoding="utf-8")
    _ezkl().gen_witness(
        data=str(inputs_file),
        model=circuit,
        output=witness,
        vk_path=str(Path(folder) / "vk"),
        srs_path=srs,
    )
    return witness


def _model(path: Path, a: Rows, b: Rows) -> str:
    """Write the ONNX graph: y = (x·Aᵀ)·Bᵀ and t = tag + tag. Weights are value times 2⁻²⁴."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def weight(rows: Rows, name: str) -> Any:
        exact = np.asarray(rows, dtype=np.float64).T / 2**FRACTION_BITS
        return numpy_helper.from_array(np.ascontiguousarray(exact, dtype=np.float32), name)

    def vector(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, width])

    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "A"], ["h"]),
            helper.make_node("MatMul", ["h", "B"], ["y"]),
            helper.make_node("Add", ["tag", "tag"], ["t"]),
        ],
        "lora",
        [vector("x", len(a[0])), vector("tag", 2)],
        [vector("y", len(b)), vector("t", 2)],
        [weight(a, "A"), weight(b, "B")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return str(path)


def felt(value: int) -> str:
    """An integer as an element of the scalar field: 32 bytes, little-endian, in hex."""
    return (value % SCALAR_FIELD).to_bytes(32, "little").hex()


if __name__ == "__main__":
    answer_requests()
