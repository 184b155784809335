"""Split the copiste_train lines into training and validation by writer, excluding the writers of the test lines.

    python recipe/split_copiste.py COPISTE_TRAIN_DIR OUT_DIR

Writes OUT_DIR/train.tsv and OUT_DIR/val.tsv (relative file TAB text), for `ms-ocr lmdb build ... --image-root`.
"""

import re
import sys
from pathlib import Path

VALIDATION_SHARE = 12  # one writer in this many


def main(source: Path, out: Path) -> None:
    readme = (source / "README.md").read_text(encoding="utf-8")
    shared = set(readme.split("## Writers shared with real_dev/copiste")[1].split())  # page names, and words of prose
    rows = [line.split("\t") for line in (source / "labels.tsv").read_text(encoding="utf-8").splitlines()]
    writers = sorted({_writer(page) for _, _, page in rows if page not in shared})
    held_out = set(writers[::VALIDATION_SHARE])
    out.mkdir(parents=True, exist_ok=True)
    counts = {"train": 0, "val": 0, "left out": 0}
    with open(out / "train.tsv", "w", encoding="utf-8") as train, open(out / "val.tsv", "w", encoding="utf-8") as val:
        for file, text, page in rows:
            if page in shared:
                counts["left out"] += 1
                continue
            part = "val" if _writer(page) in held_out else "train"
            counts[part] += 1
            (val if part == "val" else train).write(f"{file}\t{text}\n")
    print(counts)


def _writer(page: str) -> str:
    """The writer of a page: its name without the suffix `_1`, `_2`, `_3` for several pages."""
    return re.sub(r"_[123]$", "", page)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
