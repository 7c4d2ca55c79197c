#!/usr/bin/env bash
# The results table of docs/results.md: every baseline at two strengths, three FR models, one
# recovery attacker. A row that is there already is not measured again.
#
#   bench/baselines.sh ../shared results [cache folder] [threads]
set -euo pipefail
shared=$1 out=$2 cache=${3:-$2/cache} threads=${4:-2}
here=$(cd "$(dirname "$0")/.." && pwd)

row() { # label, attack steps, pairs a fold (of 600) or quick, method, options…
    local label=$1 steps=$2 pairs=$3 method=$4 options=()
    shift 4
    for option in "$@"; do options+=(--method-option "$option"); done
    case $pairs in
        quick) options+=(--quick) ;; # 100 pairs a fold, a quarter of the faces elsewhere
        600) ;;
        *) options+=(--pairs-per-fold "$pairs") ;;
    esac
    [ -f "$out/$label/evaluation.json" ] && return
    "${PYTHON:-python}" "$here/pipelines/evaluate.py" --label "$label" --method "$method" "${options[@]}" \
        --gallery "$shared/data/lfw_aligned" --pairs "$shared/data/lfw_pairs.parquet" \
        --attack-faces "$shared/data/utk_aligned" \
        --fr "dlib=$shared/models/dlib.onnx" --fr "mobileface=$shared/models/mobileface.onnx" \
        --black-box "faceres=$shared/models/faceres.onnx" \
        --attacks unet --attack-steps "$steps" --threads "$threads" --cache "$cache" \
        --out "$out/$label"
}

row highpass-2 400 600 highpass sigma=2 gain=2.5
row signed-field-28 500 600 signed-field sigma=2 gain=2.5 grid=28
row blur-6 300 600 blur sigma=6
row signed-field-14 300 200 signed-field sigma=2 gain=2.5 grid=14
row pixelate-16 150 200 pixelate block=16
row highpass-1 120 100 highpass sigma=1 gain=5
row blur-3 120 quick blur sigma=3
row pixelate-8 120 quick pixelate block=8
