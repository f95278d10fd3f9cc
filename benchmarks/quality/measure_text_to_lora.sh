#!/usr/bin/env bash
# Measure a Text-to-LoRA checkpoint on the held-out tasks and on those it was trained on, bare and
# prompted, against the base, other tasks' descriptions and gibberish.
#
#   benchmarks/quality/measure_text_to_lora.sh TASKS RESULTS [CHECKPOINT]
#
# RESULTS gets heldout.json and seen.json. Each part of the large table is a process of its own, because
# one alone does not fill a large GPU; their reports are joined.
set -euo pipefail
cd "$(dirname "$0")/../.."
tasks=$1 results=$2 checkpoint=${3:-pretrained/text-to-lora}
mkdir -p "$results"

evaluate() { # report, tasks, methods, mode
    python3 -m api evaluate --device "${DEVICE:-cuda}" --batch-size "${BATCH:-1024}" --overwrite \
        --tasks "$tasks/$2" --methods "$3" --mode "$4" --checkpoint "$checkpoint" \
        --out "$results/$1.json" ${BASE:+--base "$BASE"} 2>"$results/$1.log"
}

own=text-to-lora wrong=text-to-lora:wrong-description gibberish=text-to-lora:gibberish
all="base,$own,$wrong,$gibberish"
evaluate heldout public_heldout "$all" bare,prompted & jobs=($!)
for method in base "$own" "$wrong" "$gibberish"; do
    for mode in bare prompted; do
        evaluate "part-$method-$mode" train "$method" "$mode" & jobs+=($!)
    done
done
for job in "${jobs[@]}"; do wait "$job"; done
python3 benchmarks/quality/join_reports.py "$results"/part-*.json --out "$results/seen.json"
rm -f "$results"/part-*
