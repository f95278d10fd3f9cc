#!/usr/bin/env bash
# Choose settings of Text-to-LoRA on train tasks that are set aside, never on held-out ones.
#
#   benchmarks/tune_text_to_lora.sh TASKS OUT [STEPS [VARIANT ...]]
#
# Trains the variants below side by side on 85 % of the tasks and measures each on the rest:
# OUT/VARIANT.json, and OUT/VARIANT.options with what to give `train`. Needs a CUDA GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
tasks=$1 out=$2 steps=${3:-500}
mkdir -p "$out"

relabel="--data.sampling.relabel_share 0.5"
words="--model.architecture.words_dim 384 --model.architecture.head_in 432"
wide="--model.architecture.words_dim 384 --model.architecture.latent 256 --model.architecture.head_in 336"
declare -A options=(
    [tokens]="--data.sampling.relabel_share 0"
    [relabel]="$relabel"
    [words]="$relabel $words"
    [wide]="$relabel $wide"
    [wide-dropout]="$relabel $wide --model.architecture.dropout 0.2"
    [wide-plain]="--data.sampling.relabel_share 0 $wide"
)

variant() { # name
    local run="$out/$1"
    # shellcheck disable=SC2086
    python3 -m api train fit --config configs/text_to_lora.yaml \
        --data.tasks "[$tasks/train,$tasks/train_extra]" --data.set_aside_share 0.15 \
        --data.steps "$steps" --data.workers "${WORKERS:-2}" --trainer.max_steps "$steps" \
        --trainer.default_root_dir "$run" --trainer.logger.init_args.save_dir "$run" \
        --trainer.enable_progress_bar false --model.compile_layers "${COMPILE:-true}" \
        --model.out "$run/checkpoint" ${options[$1]} ${MORE:-} >"$run.log" 2>&1
    python3 benchmarks/set_aside.py "$run/checkpoint" "$run/tasks" "$tasks/train" "$tasks/train_extra"
    python3 -m api evaluate --device "${DEVICE:-cuda}" --batch-size "${BATCH:-1024}" --overwrite \
        --tasks "$run/tasks" --methods text-to-lora,text-to-lora:wrong-description --mode bare \
        --checkpoint "$run/checkpoint" --out "$run.json" ${BASE:+--base "$BASE"} \
        >"$run.table" 2>>"$run.log"
    echo "${options[$1]}" >"$run.options"
}

names=("${@:4}")
[ ${#names[@]} -gt 0 ] || names=(tokens relabel words wide wide-dropout wide-plain)
for name in "${names[@]}"; do variant "$name" & done
wait
tail -n 2 "$out"/*.table
