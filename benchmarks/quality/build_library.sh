#!/usr/bin/env bash
# Build the library of oracle adapters and measure every method with it: one command, minutes on a GPU.
#
#   benchmarks/quality/build_library.sh TASKS OUT [STEPS]
#
# OUT/library holds an adapter for every train task. OUT/oracles holds those of the held-out tasks: a
# library of their own, which no retrieval method reads. OUT/multi holds the multi-task adapters.
# OUT/results gets what it took and the reports; each is joined from parts that run side by side.
set -euo pipefail
cd "$(dirname "$0")/../.."
tasks=$1 out=$2 steps=${3:-300}
mkdir -p "$out/results" "$out/parts"

build() { # name, folder
    python3 -m api library build --tasks "$tasks/$2" --out "$out/$1" --steps "$steps" --slots 32 \
        --device "${DEVICE:-cuda}" ${COMPILE---compile} --resume --json \
        ${BASE:+--base "$BASE"} >"$out/results/$1.json" 2>"$out/results/$1.log"
}

multi_task() { # mode, share of prompts with the instruction
    python3 -m api train fit --config configs/multi_task.yaml --data.tasks "[$tasks/train]" \
        --data.sampling.prompted_share "$2" --model.out "$out/multi/$1" \
        --trainer.logger.init_args.save_dir "$out/multi/run-$1" ${MULTI:-} \
        ${BASE:+--model.base "$BASE" --data.base "$BASE"} >"$out/results/multi-$1.log" 2>&1
}

evaluate() { # report, folder, oracles, methods, mode
    python3 -m api evaluate --device "${DEVICE:-cuda}" --batch-size "${BATCH:-448}" --overwrite \
        --tasks "$tasks/$2" --library "$out/library" --oracles "$out/$3" --multi-task "$out/multi" \
        --methods "$4" --mode "$5" --out "$out/parts/$1-$4.json" ${BASE:+--base "$BASE"} \
        ${MORE:-} >/dev/null 2>"$out/parts/$1-$4.log"
}

start_when_free() { # one GPU holds so many at once
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-8}" ]; do sleep 0.2; done
}

join() { # report
    python3 benchmarks/quality/join_reports.py "$out/parts/$1-"*.json \
        --out "$out/results/$1.json" --html "$out/results/$1.html" >"$out/results/$1.md"
}

multi_task bare 0 & jobs=($!)
multi_task prompted 1 & jobs+=($!)
build library train
build oracles public_heldout
for job in "${jobs[@]}"; do wait "$job"; done

given=(multi-task oracle soup nearest top-k)
made=(text-to-lora text-to-lora:wrong-description text-to-lora:gibberish)
jobs=()
run() { start_when_free; evaluate "$@" & jobs+=($!); }
for method in base in-context "${given[@]}" "${made[@]}"; do
    run methods-heldout public_heldout oracles "$method" bare,prompted
done
for method in base "${given[@]}" "${made[@]}"; do
    run methods-seen train library "$method" bare
done
for job in "${jobs[@]}"; do wait "$job"; done
join methods-heldout
join methods-seen
