#!/usr/bin/env bash
# Train a model from nothing: inputs, single columns, columns and real lines, the same with lines made of parts of real
# ones, whole lines. Run again to go on where it was.
#
#   recipe/train.sh COPISTE_TRAIN_DIR WORK_DIR [CONFIGURATION]
#
# CONFIGURATION: recipe/configuration.json (the embedded model, 2 cores) or recipe/full_size.json (the official sizes, a
# GPU). Of the first phase STEPS, BATCH, LR and MINUTES (a slice: it stops then, run again) may be set, of the second
# REAL_STEPS, REAL_BATCH, REAL_LINES, REAL_LR, of the third PARTS_STEPS and so on; WORKERS draw chunks, REAL_WORKERS real
# lines; LINES are synthetic ones for the last, one chunk wide, and REPEATS how often the real lines stand among them.
set -euo pipefail
copiste=$1 work=$2
recipe=$(cd "$(dirname "$0")" && pwd)
configuration=${3:-$recipe/configuration.json}
workers=${WORKERS:-1} real_workers=${REAL_WORKERS:-1} lines=${LINES:-24000} repeats=${REPEATS:-4}
mkdir -p "$work"

[ -f "$work/inputs/manifest.tsv" ] || python -m ms_ocr_handwritten.synth.fetch "$work/inputs"

mkdir -p "$work/model"
[ -f "$work/model/vocab.txt" ] ||
    python -c "import sys; from pathlib import Path; from ms_ocr_handwritten.synth.charset import write_vocabulary
write_vocabulary(Path(sys.argv[1]))" "$work/model/vocab.txt"
cp "$configuration" "$work/model/configuration.json"

if [ ! -d "$work/real" ]; then
    python "$recipe/split_copiste.py" "$copiste" "$work/split"
    ms-ocr lmdb build "$work/real_held_out" "$work/split/val.tsv" --image-root "$copiste"
    ms-ocr lmdb build "$work/real" "$work/split/train.tsv" --image-root "$copiste"
fi

pretrain() { # out, steps, further options
    python "$recipe/pretrain.py" --inputs "$work/inputs" --model "$work/model" --out "$work/$1" --steps "$2" \
        --workers "$workers" --real-workers "$real_workers" ${MINUTES:+--minutes "$MINUTES"} "${@:3}"
    tail -n 1 "$work/$1/pretrain_log.jsonl" | grep -q "\"step\": $2," || { echo "$1: to be continued"; exit; }
}
pretrain columns "${STEPS:-5000}" --batch "${BATCH:-48}" --kind single=0.25 --lr "${LR:-1.5e-3}"
pretrain with_real "${REAL_STEPS:-7000}" --batch "${REAL_BATCH:-32}" --lr "${REAL_LR:-1.2e-3}" --seed 2 \
    --kind single=0.5 --sparse 0.3 --ctc 0.3 --weights "$work/columns/pytorch_model.pt" \
    --real "$work/real" --real-lines "${REAL_LINES:-10}"
cp "$work/with_real/pytorch_model.pt" "$work/model/pytorch_model.pt"
[ -f "$work/cuts.json" ] || python "$recipe/cuts.py" "$work/model" "$work/real" "$work/cuts.json"
pretrain with_parts "${PARTS_STEPS:-1650}" --batch "${PARTS_BATCH:-22}" --lr "${PARTS_LR:-4e-4}" --seed 6 \
    --kind single=0.8 --kind english=0.2 --kind accented=0.16 --kind numbers=0.12 --sparse 0.4 --ctc 0.3 --dropout 0.05 \
    --weights "$work/with_real/pytorch_model.pt" --real "$work/real" --cuts "$work/cuts.json" \
    --real-lines "${PARTS_LINES:-8}" --real-weight 0.8 --mask 0.06
cp "$work/with_parts/pytorch_model.pt" "$work/model/pytorch_model.pt"

synth() { # name, lines, seed, width in px, how degraded (the trainer augments, too), further options
    [ -d "$work/$1" ] || ms-ocr synth --inputs "$work/inputs" --out "$work/$1" --lines "$2" --seed "$3" \
        --max-width "$4" --degrade "$5" "${@:6}"
}
synth narrow "$lines" 101 252 0.25
synth single $((lines / 3)) 103 252 0.4 --only single
synth held_out 400 900 504 0.7

real=()
for _ in $(seq "$repeats"); do real+=(--train "$work/real"); done
ms-ocr train --model "$work/model" --work-dir "$work/work_dir" --train "$work/narrow" --train "$work/single" "${real[@]}" \
    --eval "$work/real_held_out" --eval "$work/held_out" --set "train.dataloader.workers_per_gpu=$workers"
