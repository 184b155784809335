#!/usr/bin/env bash
# Train a model from nothing: inputs, first phase, synthetic lines, second phase. Run again to go on where it was.
#
#   recipe/train.sh COPISTE_TRAIN_DIR WORK_DIR [CONFIGURATION]
#
# CONFIGURATION: recipe/configuration.json (the embedded model, 2 cores) or recipe/full_size.json (the official sizes, a
# GPU). Of the first phase STEPS, BATCH, LR and MINUTES (a slice: it stops then, run again) may be set; WORKERS draw
# lines; LINES are synthetic ones for CTC, one chunk wide, and REPEATS how often the real lines stand among them.
set -euo pipefail
copiste=$1 work=$2
recipe=$(cd "$(dirname "$0")" && pwd)
configuration=${3:-$recipe/configuration.json}
steps=${STEPS:-5000} batch=${BATCH:-48} lr=${LR:-1.5e-3} workers=${WORKERS:-1} lines=${LINES:-24000} repeats=${REPEATS:-7}
mkdir -p "$work"

[ -f "$work/inputs/manifest.tsv" ] || python -m ms_ocr_handwritten.synth.fetch "$work/inputs"

mkdir -p "$work/model"
[ -f "$work/model/vocab.txt" ] ||
    python -c "import sys; from pathlib import Path; from ms_ocr_handwritten.synth.charset import write_vocabulary
write_vocabulary(Path(sys.argv[1]))" "$work/model/vocab.txt"
cp "$configuration" "$work/model/configuration.json"

python "$recipe/pretrain.py" --inputs "$work/inputs" --model "$work/model" --out "$work/pretrained" \
    --steps "$steps" --batch "$batch" --lr "$lr" --workers "$workers" ${MINUTES:+--minutes "$MINUTES"}
tail -n 1 "$work/pretrained/pretrain_log.jsonl" | grep -q "\"step\": $steps," || { echo "first phase: to be continued"; exit; }
cp "$work/pretrained/pytorch_model.pt" "$work/model/pytorch_model.pt"

synth() { # name, lines, seed, width in px, how degraded (the trainer augments, too), further options
    [ -d "$work/$1" ] || ms-ocr synth --inputs "$work/inputs" --out "$work/$1" --lines "$2" --seed "$3" \
        --max-width "$4" --degrade "$5" "${@:6}"
}
synth narrow "$lines" 101 252 0.25
synth wide $((lines / 3)) 102 504 0.25
synth single $((lines / 3)) 103 252 0.4 --only single
synth held_out 400 900 504 0.7

if [ ! -d "$work/real" ]; then
    python "$recipe/split_copiste.py" "$copiste" "$work/split"
    ms-ocr lmdb build "$work/real_held_out" "$work/split/val.tsv" --image-root "$copiste"
    ms-ocr lmdb build "$work/real" "$work/split/train.tsv" --image-root "$copiste"
fi

real=()
for _ in $(seq "$repeats"); do real+=(--train "$work/real"); done
ms-ocr train --model "$work/model" --work-dir "$work/work_dir" --train "$work/narrow" --train "$work/wide" \
    --train "$work/single" "${real[@]}" \
    --eval "$work/real_held_out" --eval "$work/held_out" --set "train.dataloader.workers_per_gpu=$workers"
