#!/usr/bin/env bash
# Build the library of oracle adapters and measure every method with it: one command, minutes on a GPU.
#
#   benchmarks/build_library.sh TASKS OUT [STEPS]
#
# OUT/library holds an adapter for every train task. OUT/oracles holds those of the held-out tasks: a
# library of their own, which no retrieval method reads. OUT/results gets what it took and the reports.
set -euo pipefail
cd "$(dirname "$0")/.."
tasks=$1 out=$2 steps=${3:-300}
mkdir -p "$out/results"

build() { # name, folder
    python3 -m api library build --tasks "$tasks/$2" --out "$out/$1" --steps "$steps" --slots 64 \
        --device "${DEVICE:-cuda}" ${COMPILE---compile} --resume --json \
        ${BASE:+--base "$BASE"} >"$out/results/$1.json" 2>"$out/results/$1.log"
}

evaluate() { # report, folder, oracles, methods, mode
    python3 -m api evaluate --device "${DEVICE:-cuda}" --batch-size "${BATCH:-448}" --overwrite \
        --tasks "$tasks/$2" --library "$out/library" --oracles "$out/$3" --methods "$4" --mode "$5" \
        --out "$out/results/$1.json" --html "$out/results/$1.html" ${BASE:+--base "$BASE"} \
        ${MORE:-} >"$out/results/$1.md" 2>"$out/results/$1.log"
}

build library train
build oracles public_heldout
generated=text-to-lora,text-to-lora:wrong-description,text-to-lora:gibberish
evaluate methods-heldout public_heldout oracles \
    "base,in-context,soup,nearest,top-k,$generated,oracle" bare,prompted & jobs=($!)
evaluate methods-seen train library "base,soup,nearest,top-k,$generated,oracle" bare & jobs+=($!)
for job in "${jobs[@]}"; do wait "$job"; done
