#!/usr/bin/env bash
# Calibrate what `auto` chooses by and what is expected of an adapter, from reports of
# `lorasmith evaluate`: seconds on a CPU.
#
#   benchmarks/calibrate/all.sh
#
# As it stands it makes the files that ship again, byte for byte. For a new generator or multi-task
# adapter, put it in pretrained/ and measure it first; then name the reports:
#
#   GENERATED  text-to-lora, bare, on train tasks that its training set aside
#   RETRIEVED  nearest, on the same tasks, with a library that lacks them
#   SEEN       base, oracle, nearest and top-k, bare, on tasks of that library
#   FIT        every strategy that ships, on the user-style tasks for choosing; with examples too
#   CHECK      the same on other tasks, which choose nothing
#   OUT        where the files go, beside this repository's own; their folders are kept
#
# FIT and CHECK are lists. The second base's expectations are made of its own reports. Prints the
# scores by which auto.py chose, a table of all strategies on the choosing tasks, and how reliable
# the expectations are.
set -euo pipefail
cd "$(dirname "$0")/../.."
results=docs/results
generated=${GENERATED:-$results/tuning/recipe-1600-steps.json}
retrieved=${RETRIEVED:-$results/auto-set-aside.json}
seen=${SEEN:-$results/methods-seen.json}
default="$results/refine-user.json $results/refine-user-previous.json"
default+=" $results/refine-sft-user.json $results/generators-user.json"
read -ra fit <<<"${FIT:-$default}"
default="$results/refine-heldout.json $results/refine-heldout-previous.json"
default+=" $results/refine-sft-heldout.json"
default+=" $results/refine-heldout-seed1.json"
default+=" $results/refine-heldout-seed2.json $results/lofa-heldout.json"
default+=" $results/icm-lora-heldout.json $results/sg-lora-sample.json $results/reporting.json"
read -ra check <<<"${CHECK-$default}"
python=${PYTHON:-python3} to=${OUT:+$OUT/}

"$python" benchmarks/calibrate/auto.py --generated "$generated" --retrieved "$retrieved" \
    --seen "$seen" --out "${to}generator/strategies/calibration.json" \
    --report "$to$results/auto-calibration.json" --picture "$to$results/auto-calibration.png"
previous=$results/refine-user-previous.json # of a multi-task adapter that shipped earlier
"$python" -m benchmarks.quality.user_table --user "${fit[@]/#$previous/previous=$previous}" \
    --out "$to$results/choosing.json"
"$python" -m benchmarks.calibrate.expected --fit "${fit[@]}" --check "${check[@]}" \
    --file "${to}generator/expected.json" --out "$to$results/expected.json" \
    --picture "$to$results/expected.png"
"$python" -m benchmarks.calibrate.expected --fit $results/second-base-user.json \
    --check $results/second-base-reporting.json \
    --file "${to}generator/expected-qwen2.5-coder-0.5b.json" \
    --out "$to$results/expected-second-base.json"
