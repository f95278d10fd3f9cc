#!/usr/bin/env bash
# Measure what a library's adapters give when they are picked or merged: minutes on a GPU.
#
#   benchmarks/quality/measure_composition.sh TASKS LIB OUT
#
# TASKS is a folder of task files or one with public_heldout in it. Every method is a process of its
# own, JOBS of them side by side; their parts are joined into OUT/composition-methods.json.
# METHODS, DEVICE, BATCH, LIMIT, BASE and PREDICTOR (a checkpoint of lora-rar) may be set. With TRAIN, a
# list of task folders such as [TASKS/train], a predictor is first trained on them and LIB, and scored
# on pairs that were set aside: OUT/lora-rar and OUT/lora-rar.json.
set -euo pipefail
cd "$(dirname "$0")/../.."
tasks=$1 lib=$2 out=$3
[ -d "$tasks/public_heldout" ] && tasks=$tasks/public_heldout
mkdir -p "$out/parts"
python=${PYTHON:-python3}

if [ -n "${TRAIN:-}" ]; then
    "$python" -m api train fit --config configs/lora_rar.yaml --data.library "$lib" \
        --data.tasks "$TRAIN" --model.out "$out/lora-rar" \
        --trainer.logger.init_args.save_dir "$out/lora-rar-run" \
        ${BASE:+--data.base "$BASE"} ${RAR:-} >"$out/parts/train.log" 2>&1
    folders=${TRAIN//[\[\]]/}
    # shellcheck disable=SC2086
    "$python" benchmarks/quality/merge_predictor.py --library "$lib" --tasks ${folders//,/ } \
        --predictor "$out/lora-rar" --device "${DEVICE:-cuda}" --out "$out/lora-rar.json" \
        ${BASE:+--base "$BASE"} >"$out/parts/score.log" 2>&1
    PREDICTOR=$out/lora-rar
fi

evaluate() { # method
    "$python" -m api evaluate --device "${DEVICE:-cuda}" --batch-size "${BATCH:-448}" --overwrite \
        --tasks "$tasks" --library "$lib" --methods "$1" --mode bare,prompted \
        --out "$out/parts/${1//:/-}.json" ${LIMIT:+--limit "$LIMIT"} \
        ${PREDICTOR:+--predictor "$PREDICTOR"} ${BASE:+--base "$BASE"} >/dev/null 2>"$out/parts/${1//:/-}.log"
}

methods=${METHODS:-base nearest soup top-k lego lora-rar lorahub:5 lorahub:16}
parts=() jobs=()
for method in $methods; do
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-8}" ]; do sleep 0.2; done
    evaluate "$method" & jobs+=($!)
    parts+=("$out/parts/${method//:/-}.json")
done
for i in "${!jobs[@]}"; do
    wait "${jobs[$i]}" || { echo "failed: ${parts[$i]}" >&2; cat "${parts[$i]%.json}.log" >&2; exit 1; }
done
"$python" benchmarks/quality/join_reports.py "${parts[@]}" --out "$out/composition-methods.json" \
    --html "$out/composition-methods.html"
