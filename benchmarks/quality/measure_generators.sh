#!/usr/bin/env bash
# Measure all generators on one table, without examples and as starts of a training on a handful.
#
#   benchmarks/quality/measure_generators.sh TASKS LIB RUNS OUT [SEED]
#
# TASKS is a folder of task files, LIB the library that the checkpoints were trained on, and RUNS holds
# these, each by the name of its label below; those that are not there are left out. Every part is a
# process of its own, JOBS of them side by side over GPUS GPUs, and OUT/generators.json joins them.
# DEVICE, BATCH and LIMIT may be set.
set -euo pipefail
cd "$(dirname "$0")/../.."
tasks=$1 lib=$2 runs=$3 out=$4 seed=${5:-0}
mkdir -p "$out/parts"
python=${PYTHON:-python3} parts=() count=0

part() { # label, methods, modes, more arguments
    local name=${2//[:,]/-} label=$1 methods=$2 modes=$3
    name=$label-${name:0:80}-$modes
    shift 3
    while [ "$(jobs -rp | wc -l)" -ge "${JOBS:-4}" ]; do wait -n; done
    CUDA_VISIBLE_DEVICES=$((count++ % ${GPUS:-1})) "$python" -m api evaluate --overwrite \
        --device "${DEVICE:-cuda}" --batch-size "${BATCH:-448}" --tasks "$tasks" --library "$lib" \
        --methods "$methods" --mode "$modes" --seed "$seed" --out "$out/parts/$name.json" \
        ${LIMIT:+--limit "$LIMIT"} "$@" >/dev/null 2>"$out/parts/$name.log" &
    parts+=("${label:+$label=}$out/parts/$name.json")
}

checkpoint() { # generator, folder in RUNS, label, more methods
    [ -d "$runs/$2" ] || return 0
    part "$3" "$1,$1:wrong-description,$1:gibberish${4:+,$4}" bare,prompted --checkpoint "$runs/$2"
    for n in 5 16; do
        part "$3" "refine:$1:$n" bare,prompted --checkpoint "$runs/$2"
    done
}

part "" base,soup,nearest,top-k,in-context,oracle bare,prompted
part "" multi-task prompted
for n in 5 16; do
    part "" "refine:fresh:$n,refine:multi-task:$n" bare,prompted
done
checkpoint text-to-lora text-to-lora ""
checkpoint text-to-lora text-to-lora-reconstruction reconstruction
checkpoint text-to-lora text-to-lora-examples examples \
    text-to-lora:3,text-to-lora:8,text-to-lora:8:no-description,text-to-lora:8:wrong-examples
checkpoint icm-lora icm-lora "" icm-lora:5,icm-lora:ensemble:4
checkpoint sg-lora sg-lora "" sg-lora:ensemble:4
checkpoint sg-lora sg-lora-paper paper
checkpoint lofa lofa ""
checkpoint lofa lofa-alone "no stage I"
wait
"$python" benchmarks/quality/join_reports.py "${parts[@]}" --out "$out/generators.json" \
    --html "$out/generators.html"
