#!/usr/bin/env bash
# Train the shipped Text-to-LoRA checkpoint and measure it: every number of the README's table.
#
#   benchmarks/reproduce_text_to_lora.sh TASKS OUT [STEPS [option of train ...]]
#
# TASKS holds train/, train_extra/ and public_heldout/; OUT gets all/ and train-only/ (checkpoints and
# loss curves) and results/ (reports). Needs a CUDA GPU. What can run side by side does, because one
# process alone does not fill a large GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
tasks=$1 out=$2 steps=${3:-3500} more=("${@:4}")
mkdir -p "$out/results"

train() { # name, steps, folders
    python3 -m api train fit --config configs/text_to_lora.yaml \
        --data.tasks "$3" --data.steps "$2" --data.workers "${WORKERS:-4}" --trainer.max_steps "$2" \
        --trainer.default_root_dir "$out/$1" --trainer.logger.init_args.save_dir "$out/$1" \
        --trainer.enable_progress_bar false --model.compile_layers "${COMPILE:-true}" \
        --model.out "$out/$1/checkpoint" "${more[@]}" >"$out/$1.log" 2>&1
}

evaluate() { # report, tasks, methods, mode, more
    python3 -m api evaluate --device "${DEVICE:-cuda}" --batch-size "${BATCH:-1024}" --overwrite \
        --tasks "$tasks/$2" --methods "$3" --mode "$4" --out "$out/results/$1.json" "${@:5}" \
        ${BASE:+--base "$BASE"} 2>"$out/results/$1.log"
}

await() { # process ...: all of them, and fail if one did
    for job in "$@"; do wait "$job"; done
}

# The base's answers need no checkpoint; evaluate keeps them in the cache.
evaluate base-heldout public_heldout base bare,prompted & jobs=($!)
evaluate base-seen train base bare,prompted & jobs+=($!)
# As many visits to each task as in the run on all of them: 256 of 558 tasks.
train all "$steps" "[$tasks/train,$tasks/train_extra]" & jobs+=($!)
train train-only $((steps * 256 / 558)) "[$tasks/train]" & jobs+=($!)
await "${jobs[@]}"

own=text-to-lora wrong=text-to-lora:wrong-description gibberish=text-to-lora:gibberish
all=(--checkpoint "$out/all/checkpoint")
evaluate heldout public_heldout "base,$own,$wrong,$gibberish" bare,prompted "${all[@]}" & jobs=($!)
evaluate heldout-train-only public_heldout "$own,$wrong" bare \
    --checkpoint "$out/train-only/checkpoint" & jobs+=($!)
# One process for each part of the large table; the last one finds their answers in the cache.
for method in "$own" "$wrong" "$gibberish"; do
    for mode in bare prompted; do
        evaluate "seen-$method-$mode" train "$method" "$mode" "${all[@]}" & jobs+=($!)
    done
done
await "${jobs[@]}"
evaluate seen train "base,$own,$wrong,$gibberish" bare,prompted "${all[@]}"
rm -f "$out"/results/base-*.json "$out"/results/seen-*.json
