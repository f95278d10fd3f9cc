#!/usr/bin/env bash
# Measure what a library's adapters give when they are picked or merged: minutes on a GPU.
#
#   benchmarks/measure_composition.sh TASKS LIB OUT
#
# TASKS is a folder of task files or one with public_heldout in it. Every method is a process of its
# own, JOBS of them side by side; their parts are joined into OUT/composition-methods.json.
# METHODS and DEVICE, BATCH, LIMIT and PREDICTOR (a checkpoint of lora-rar) may be set.
set -euo pipefail
cd "$(dirname "$0")/.."
tasks=$1 lib=$2 out=$3
[ -d "$tasks/public_heldout" ] && tasks=$tasks/public_heldout
mkdir -p "$out/parts"
python=${PYTHON:-python3}

evaluate() { # method
    "$python" -m api evaluate --device "${DEVICE:-cuda}" --batch-size "${BATCH:-448}" --overwrite \
        --tasks "$tasks" --library "$lib" --methods "$1" --mode bare,prompted \
        --out "$out/parts/$1.json" ${LIMIT:+--limit "$LIMIT"} \
        ${PREDICTOR:+--predictor "$PREDICTOR"} >/dev/null 2>"$out/parts/$1.log"
}

methods=${METHODS:-base nearest soup top-k lego lora-rar lorahub:5 lorahub:16}
parts=() jobs=()
for method in $methods; do
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-8}" ]; do sleep 0.2; done
    evaluate "$method" & jobs+=($!)
    parts+=("$out/parts/$method.json")
done
for i in "${!jobs[@]}"; do
    wait "${jobs[$i]}" || { echo "failed: ${parts[$i]}" >&2; cat "${parts[$i]%.json}.log" >&2; exit 1; }
done
"$python" benchmarks/join_reports.py "${parts[@]}" --out "$out/composition-methods.json" \
    --html "$out/composition-methods.html"
