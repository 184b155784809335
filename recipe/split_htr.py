"""Select lines of htr_train with a limit per hand, and hold out whole wills, one hand each.

    python recipe/split_htr.py HTR_TRAIN_DIR OUT_DIR

Writes OUT_DIR/train.tsv and OUT_DIR/val.tsv (relative file TAB text), for `ms-ocr lmdb build ... --image-root`.
"""

import sys
from pathlib import Path

import numpy as np

WILLS = "CREMMA-AN-TestamentDePoilus"  # about one hand per page
HELD_OUT_SHARE = 12  # one will in this many
MOST = {  # lines per collection: about 50 per hand, fewer for those of the 17th and 18th century
    "timeuscorpus": 550,
    "CREMMA-MSS-19": 500,
    "lectaurep-repertoires": 500,
    "modern-roman-languages": 100,
    "CREMMA-MSS-18": 100,
    "peraire-ground-truth": 60,
    "dataset-celestine-doniau-danest": 50,
}


def main(source: Path, out: Path) -> None:
    rows = [line.split("\t") for line in (source / "labels.tsv").read_text(encoding="utf-8").splitlines()]
    order = np.random.default_rng(1).permutation(len(rows))
    wills = sorted({page for _, _, page in rows if page.startswith(WILLS)})
    held_out = set(wills[::HELD_OUT_SHARE])
    taken: dict[str, int] = {}
    out.mkdir(parents=True, exist_ok=True)
    with open(out / "train.tsv", "w", encoding="utf-8") as train, open(out / "val.tsv", "w", encoding="utf-8") as val:
        for file, text, page in (rows[place] for place in order):
            collection = page.partition("/")[0]
            if page in held_out:
                collection = "held out"
                val.write(f"{file}\t{text}\n")
            elif taken.get(collection, 0) < MOST.get(collection, len(rows)):
                train.write(f"{file}\t{text}\n")
            else:
                collection = "left out"
            taken[collection] = taken.get(collection, 0) + 1
    print(taken)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
