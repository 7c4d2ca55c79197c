#!/usr/bin/env bash
# The results table of docs/results.md: every baseline at two strengths, three FR models, a recovery
# attacker, all of them for the signed field. A row that is there already is not measured again.
#
#   bench/baselines.sh ../shared results [cache folder] [threads]
set -euo pipefail
shared=$1 out=$2 cache=${3:-$2/cache} threads=${4:-2}
here=$(cd "$(dirname "$0")/.." && pwd)

row() { # label, attackers, attack steps, pairs a fold (of 600), method, options…
    local label=$1 attacks=$2 steps=$3 pairs=$4 method=$5 options=()
    shift 5
    for option in "$@"; do options+=(--method-option "$option"); done
    [ "$pairs" = 600 ] || options+=(--pairs-per-fold "$pairs")
    [ -f "$out/$label/evaluation.json" ] && return
    "${PYTHON:-python}" "$here/pipelines/evaluate.py" --label "$label" --method "$method" "${options[@]}" \
        --gallery "$shared/data/lfw_aligned" --pairs "$shared/data/lfw_pairs.parquet" \
        --attack-faces "$shared/data/utk_aligned" \
        --fr "dlib=$shared/models/dlib.onnx" --fr "mobileface=$shared/models/mobileface.onnx" \
        --black-box "faceres=$shared/models/faceres.onnx" \
        --stages utility,disclosure,diversity,linkage,recovery,groups --attacks "$attacks" --attack-steps "$steps" --threads "$threads" --cache "$cache" \
        --out "$out/$label"
}

row highpass-2 unet 400 600 highpass sigma=2 gain=2.5
row blur-6 unet 300 600 blur sigma=6
row blur-3 unet 300 600 blur sigma=3
row pixelate-8 unet 300 600 pixelate block=8
row highpass-1 unet 300 600 highpass sigma=1 gain=5
row signed-field-28 unet,residual,averaging,fixed,leaked 900 600 signed-field sigma=2 gain=2.5 grid=28
row pixelate-16 unet 300 600 pixelate block=16
row signed-field-14 unet 600 600 signed-field sigma=2 gain=2.5 grid=14
