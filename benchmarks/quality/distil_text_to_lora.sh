#!/usr/bin/env bash
# Train and measure the Text-to-LoRA checkpoint that ships: a reader of descriptions from the
# multi-task adapter, the generator distilled from that adapter, and its scores.
#
#   benchmarks/quality/distil_text_to_lora.sh TASKS OUT
#
# TASKS is a folder of task files; the authored tasks are in the repository. On one H200 the training
# takes 16 minutes with another job beside it. The checkpoint that ships was made so with
# the multi-task adapter and the authored tasks of commit 28ea2d8.
set -euo pipefail
cd "$(dirname "$0")/../.."
tasks=$1 out=$2 steps=${STEPS:-1190}
python=${PYTHON:-python3} device=${DEVICE:-cuda}
mkdir -p "$out"

"$python" -m benchmarks.calibrate.base_states --layers 18 --adapter pretrained/multi-task \
    --tasks "$tasks/train" "$tasks/train_extra" --device "$device" --out "$out/reader"
"$python" -m api train fit --config configs/text_to_lora_distilled.yaml \
    --data.authored true --data.tasks "[$tasks/train,$tasks/train_extra]" --data.workers "${WORKERS:-10}" \
    --model.encoder "$out/reader" --data.encoder "$out/reader" --data.set_aside_share 0 \
    --model.targets '[q_proj,v_proj,o_proj,down_proj]' --model.compile_layers "${COMPILE:-true}" \
    --model.architecture.embedding_dim 576 --model.architecture.words_dim 576 \
    --model.architecture.copy_dim 64 --model.architecture.head_in 72 \
    --model.architecture.reader_dim 0 --data.nothing_share 0.1 \
    --model.condition_noise.scale 0.1 --model.condition_noise.word_dropout 0.1 \
    --data.sampling.tasks_per_step "${TASKS_PER_STEP:-128}" --data.sampling.synthetic_share 0.5 \
    --data.sampling.variant_share 0.25 --data.sampling.paired_share 0.25 \
    --data.sampling.micro_batches 8 --trainer.callbacks '[]' \
    --trainer.enable_checkpointing false --trainer.limit_val_batches 0 \
    --trainer.max_steps "$steps" --data.steps "$steps" \
    --trainer.default_root_dir "$out/run" --trainer.logger.init_args.save_dir "$out/run" \
    --model.out "$out/text-to-lora"

for bench in benchmarks/user_tasks benchmarks/user_tasks/reporting "$tasks/public_heldout"; do
    "$python" -m api evaluate --overwrite --tasks "$bench" --mode bare,prompted \
        --methods text-to-lora,text-to-lora:wrong-description,text-to-lora:gibberish \
        --checkpoint "$out/text-to-lora" --device "$device" --batch-size 256 \
        --out "$out/$(basename "$bench").json"
done
