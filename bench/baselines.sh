#!/usr/bin/env bash
# The results table of docs/results.md: every baseline at two strengths, all 6,000 LFW pairs, three
# FR models, one recovery attacker. A row that is there already is not measured again.
#
#   bench/baselines.sh ../shared results [cache folder] [steps] [threads]
set -euo pipefail
shared=$1 out=$2 cache=${3:-$2/cache} steps=${4:-300} threads=${5:-2}
here=$(cd "$(dirname "$0")/.." && pwd)

row() { # label, steps, method, options…
    local label=$1 steps=$2 method=$3 options=()
    shift 3
    for option in "$@"; do options+=(--method-option "$option"); done
    [ -f "$out/$label/evaluation.json" ] && return
    "${PYTHON:-python}" "$here/pipelines/evaluate.py" --label "$label" --method "$method" "${options[@]}" \
        --gallery "$shared/data/lfw_aligned" --pairs "$shared/data/lfw_pairs.parquet" \
        --attack-faces "$shared/data/utk_aligned" \
        --fr "dlib=$shared/models/dlib.onnx" --fr "mobileface=$shared/models/mobileface.onnx" \
        --black-box "faceres=$shared/models/faceres.onnx" \
        --attacks unet --attack-steps "$steps" --threads "$threads" --cache "$cache" \
        --out "$out/$label"
}

row highpass-2 "$steps" highpass sigma=2 gain=2.5
row signed-field-28 "$((5 * steps / 3))" signed-field sigma=2 gain=2.5 grid=28
row blur-6 "$steps" blur sigma=6
row pixelate-16 "$steps" pixelate block=16
row signed-field-14 "$((5 * steps / 3))" signed-field sigma=2 gain=2.5 grid=14
row highpass-1 "$steps" highpass sigma=1 gain=5
row blur-3 "$steps" blur sigma=3
row pixelate-8 "$steps" pixelate block=8
