#!/usr/bin/env bash
# Train the embedded model from nothing: inputs, first phase, synthetic lines, second phase. Run again to go on.
#
#   recipe/train.sh COPISTE_TRAIN_DIR WORK_DIR
#
# STEPS (of the first phase), LINES (synthetic, one chunk wide), REPEATS (of the real lines) and WORKERS may be set.
set -euo pipefail
copiste=$1 work=$2
steps=${STEPS:-3500} lines=${LINES:-27000} repeats=${REPEATS:-7} workers=${WORKERS:-1}
recipe=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$work"

[ -f "$work/inputs/manifest.tsv" ] || python -m ms_ocr_handwritten.synth.fetch "$work/inputs"

mkdir -p "$work/model"
[ -f "$work/model/vocab.txt" ] ||
    python -c "import sys; from pathlib import Path; from ms_ocr_handwritten.synth.charset import write_vocabulary
write_vocabulary(Path(sys.argv[1]))" "$work/model/vocab.txt"
cp "$recipe/configuration.json" "$work/model/configuration.json"

python "$recipe/pretrain.py" --inputs "$work/inputs" --model "$work/model" --out "$work/pretrained" \
    --steps "$steps" --batch 48 --workers "$workers"
cp "$work/pretrained/pytorch_model.pt" "$work/model/pytorch_model.pt"

synth() { # name, lines, seed, width in px
    [ -d "$work/$1" ] ||
        ms-ocr synth --inputs "$work/inputs" --out "$work/$1" --lines "$2" --seed "$3" --max-width "$4" --degrade 0.7
}
synth narrow "$lines" 101 252
synth wide $((lines * 4 / 9)) 102 504
synth held_out 400 900 504

if [ ! -d "$work/real" ]; then
    python "$recipe/split_copiste.py" "$copiste" "$work/split"
    ms-ocr lmdb build "$work/real_held_out" "$work/split/val.tsv" --image-root "$copiste"
    ms-ocr lmdb build "$work/real" "$work/split/train.tsv" --image-root "$copiste"
fi

real=()
for _ in $(seq "$repeats"); do real+=(--train "$work/real"); done
ms-ocr train --model "$work/model" --work-dir "$work/work_dir" --train "$work/narrow" --train "$work/wide" "${real[@]}" \
    --eval "$work/real_held_out" --eval "$work/held_out" --set "train.dataloader.workers_per_gpu=$workers"
