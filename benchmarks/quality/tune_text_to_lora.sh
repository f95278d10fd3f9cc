#!/usr/bin/env bash
# Choose settings of Text-to-LoRA on train tasks that are set aside, never on held-out ones.
#
#   benchmarks/quality/tune_text_to_lora.sh TASKS OUT [STEPS [VARIANT ...]]
#
# Trains the recipe of configs/text_to_lora.yaml and the variants below side by side on 85 % of the tasks
# and measures each on the rest: OUT/VARIANT.json. OUT/best.options holds what to give `train` for the
# one with the best ROUGE-L. Needs a CUDA GPU.
set -euo pipefail
cd "$(dirname "$0")/../.."
tasks=$1 out=$2 steps=${3:-500}
mkdir -p "$out"

declare -A options=(
    [recipe]=""
    [no-relabelling]="--data.sampling.relabel_share 0"
    [more-relabelling]="--data.sampling.relabel_share 0.8"
    [no-reader]="--model.architecture.reader_dim 0 --model.architecture.head_in 320"
    [narrow]="--model.architecture.latent 128 --model.architecture.head_in 336"
    [dropout]="--model.architecture.dropout 0.2"
)

variant() { # name
    local run="$out/$1"
    # shellcheck disable=SC2086
    python3 -m api train fit --config configs/text_to_lora.yaml \
        --data.tasks "[$tasks/train,$tasks/train_extra]" --data.set_aside_share 0.15 \
        --data.steps "$steps" --data.workers "${WORKERS:-2}" --trainer.max_steps "$steps" \
        --trainer.val_check_interval "$(((steps + 3) / 4))" \
        --trainer.default_root_dir "$run" --trainer.logger.init_args.save_dir "$run" \
        --trainer.enable_progress_bar false --model.compile_layers "${COMPILE:-true}" \
        --model.out "$run/checkpoint" ${options[$1]} ${MORE:-} >"$run.log" 2>&1
    python3 benchmarks/quality/set_aside.py "$run/checkpoint" "$run/tasks" "$tasks/train" "$tasks/train_extra"
    python3 -m api evaluate --device "${DEVICE:-cuda}" --batch-size "${BATCH:-1024}" --overwrite \
        --tasks "$run/tasks" --methods text-to-lora,text-to-lora:wrong-description --mode bare \
        --checkpoint "$run/checkpoint" --out "$run.json" ${BASE:+--base "$BASE"} \
        >"$run.table" 2>>"$run.log"
    echo "${options[$1]}" >"$run.options"
}

names=("${@:4}")
[ ${#names[@]} -gt 0 ] || names=(recipe no-relabelling more-relabelling no-reader narrow dropout)
for name in "${names[@]}"; do variant "$name" & done
wait
tail -n 2 "$out"/*.table
best=$(grep -H "| text-to-lora | bare" "$out"/*.table | sort -t "|" -k 6 -n | tail -n 1 | cut -d : -f 1)
cp "${best%.table}.options" "$out/best.options"
echo "best: $(basename "${best%.table}")"
