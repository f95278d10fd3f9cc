#!/usr/bin/env bash
# Train the shipped Text-to-LoRA checkpoint and measure it: every number of the README's table.
#
#   benchmarks/quality/reproduce_text_to_lora.sh TASKS OUT [STEPS [option of train ...]]
#
# TASKS holds train/, train_extra/ and public_heldout/; OUT gets all/ and train-only/ (checkpoints and
# loss curves) and results/ (reports). Needs a CUDA GPU. What can run side by side does, because one
# process alone does not fill a large GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
tasks=$1 out=$2 steps=${3:-3500} more=("${@:4}")
mkdir -p "$out/results"

train() { # name, steps, folders
    python3 -m api train fit --config configs/text_to_lora.yaml \
        --data.tasks "$3" --data.steps "$2" --data.workers "${WORKERS:-4}" --trainer.max_steps "$2" \
        --trainer.default_root_dir "$out/$1" --trainer.logger.init_args.save_dir "$out/$1" \
        --trainer.enable_progress_bar false --model.compile_layers "${COMPILE:-true}" \
        --model.out "$out/$1/checkpoint" "${more[@]}" >"$out/$1.log" 2>&1
}

await() { # process ...: all of them, and fail if one did
    for job in "$@"; do wait "$job"; done
}

# As many visits to each task as in the run on all of them: 256 of 558 tasks.
train all "$steps" "[$tasks/train,$tasks/train_extra]" & jobs=($!)
train train-only $((steps * 256 / 558)) "[$tasks/train]" & jobs+=($!)
await "${jobs[@]}"

benchmarks/quality/measure_text_to_lora.sh "$tasks" "$out/results" "$out/all/checkpoint" & jobs=($!)
python3 -m api evaluate --device "${DEVICE:-cuda}" --batch-size "${BATCH:-1024}" --overwrite \
    --tasks "$tasks/public_heldout" --methods text-to-lora,text-to-lora:wrong-description \
    --checkpoint "$out/train-only/checkpoint" --out "$out/results/heldout-train-only.json" \
    ${BASE:+--base "$BASE"} & jobs+=($!)
await "${jobs[@]}"
