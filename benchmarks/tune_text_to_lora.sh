#!/usr/bin/env bash
# Choose settings of Text-to-LoRA on train tasks that are set aside, never on held-out ones.
#
#   benchmarks/tune_text_to_lora.sh TASKS OUT [STEPS]
#
# Trains the variants below side by side on nine tenths of the tasks and measures each on the rest:
# OUT/VARIANT.json. Needs a CUDA GPU of 40 GB a variant.
set -euo pipefail
cd "$(dirname "$0")/.."
tasks=$1 out=$2 steps=${3:-450}
mkdir -p "$out"

variant() { # name, options of train
    local run="$out/$1"
    python3 -m api train fit --config configs/text_to_lora.yaml \
        --data.tasks "[$tasks/train,$tasks/train_extra]" --data.set_aside_share 0.1 \
        --data.steps "$steps" --data.workers 4 --trainer.max_steps "$steps" \
        --trainer.default_root_dir "$run" --trainer.logger.init_args.save_dir "$run" \
        --trainer.enable_progress_bar false --model.compile_layers "${COMPILE:-true}" \
        --model.out "$run/checkpoint" "${@:2}" >"$run.log" 2>&1
    python3 benchmarks/set_aside.py "$run/checkpoint" "$run/tasks" "$tasks/train" "$tasks/train_extra"
    python3 -m api evaluate --device cuda --batch-size 1024 --overwrite --tasks "$run/tasks" \
        --methods text-to-lora,text-to-lora:wrong-description --mode bare \
        --checkpoint "$run/checkpoint" --out "$run.json" >"$run.table" 2>>"$run.log"
}

variant tokens &
variant pooled --model.architecture.queries 0 &
variant dropout --model.architecture.dropout 0.2 &
wait
tail -n 2 "$out"/*.table
