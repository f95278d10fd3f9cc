#!/usr/bin/env bash
# Choose settings on tasks set aside, then train on all tasks with the best and measure: one call, for a
# machine that is not there for long (30 minutes on an H200 with the numbers below).
#
#   benchmarks/quality/tune_and_reproduce.sh TASKS OUT [TUNE_STEPS [STEPS]]
#
# The recipe is also tuned with twice the steps. Where that does not cost tasks set aside more than half a
# point, the final run takes STEPS, else half of them.
set -euo pipefail
cd "$(dirname "$0")/../.."
tasks=$1 out=$2 tune_steps=${3:-800} steps=${4:-3500}

benchmarks/quality/tune_text_to_lora.sh "$tasks" "$out/longer" $((2 * tune_steps)) recipe & longer=$!
benchmarks/quality/tune_text_to_lora.sh "$tasks" "$out/tune" "$tune_steps" recipe dropout no-reader
wait "$longer"
steps=$(python3 - "$out/tune/recipe.json" "$out/longer/recipe.json" "$steps" <<'PY'
import json, sys
once, twice = (json.load(open(path))["means"][0]["rouge_l"] for path in sys.argv[1:3])
print(int(sys.argv[3]) if twice > once - 0.005 else int(sys.argv[3]) // 2)
PY
)
read -r -a options <"$out/tune/best.options" || true
echo "final run: $steps steps; ${options[*]:-the recipe as it is}"
benchmarks/quality/reproduce_text_to_lora.sh "$tasks" "$out" "$steps" "${options[@]}"
