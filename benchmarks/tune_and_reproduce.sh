#!/usr/bin/env bash
# Choose settings on tasks set aside, then train on all tasks with the best and measure: one call, for a
# machine that is not there for long (25 minutes on an H200 with the numbers below).
#
#   benchmarks/tune_and_reproduce.sh TASKS OUT [TUNE_STEPS [STEPS]]
set -euo pipefail
cd "$(dirname "$0")/.."
tasks=$1 out=$2 tune_steps=${3:-400} steps=${4:-3500}
benchmarks/tune_text_to_lora.sh "$tasks" "$out/tune" "$tune_steps"
read -r -a options <"$out/tune/best.options" || true
benchmarks/reproduce_text_to_lora.sh "$tasks" "$out" "$steps" "${options[@]}"
