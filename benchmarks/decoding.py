"""The cost of decoding per line: best path, a beam of 10, and a beam of 10 with a language model, on one thread.

The lines are those of `--images`, else the example lines side by side. The language model is that of
`--language-model`, else one of random text, as large as a small real one. Times are processor times, unaffected by
other programs; "added" is the whole line minus the best path's, pair by pair.
"""

import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from images import drawn_lines, evenly, folder_lines
from options import Options
from report import Claim, Section, Table, progress

from ms_ocr_handwritten import Recognizer, default_model_dir
from ms_ocr_handwritten.decoding.kneser_ney import estimate, write_arpa
from ms_ocr_handwritten.vocab import Vocabulary

LINES = 60
CHARACTERS = 25  # of the line that the limit refers to
ADDED_MS = 5.0  # that a beam with a language model may add to such a line
COLUMNS = ("reading", "ms a line", "added", "added for 25 characters", "texts unlike the best path's")


def run(options: Options) -> Section:
    images = evenly(
        folder_lines(options.images) if options.images else drawn_lines(LINES, np.random.default_rng(0)), LINES
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            progress("decoding: language model")
            model = options.language_model or _language_model(Path(folder))
            plain = Recognizer.from_pretrained(default_model_dir(), "torch", "fp32")
            fused = Recognizer.from_pretrained(default_model_dir(), "torch", "fp32", language_model=model)
            return _measured(plain, fused, images, options.heavy_rounds)
    finally:
        torch.set_num_threads(threads)


def _measured(plain: Recognizer, fused: Recognizer, images: list[np.ndarray], rounds: int) -> Section:
    ways = {
        "best path": plain.read,
        "beam 10": lambda image: plain.read(image, n_best=2),
        "beam 10, language model": fused.read,
    }
    spent: dict[str, list[list[float]]] = {name: [[] for _ in images] for name in ways}  # ms per round for each line
    texts: dict[str, list[str]] = {}
    for number in range(rounds + 1):  # the first is not counted
        for name, read in ways.items():
            progress(f"decoding: {name}, round {number}")
            texts[name] = []
            for index, image in enumerate(images):
                start = time.process_time()
                texts[name].append(read(image).text)
                if number:
                    spent[name][index].append(1000 * (time.process_time() - start))
    best = {name: np.array([statistics.median(ms) for ms in lines]) for name, lines in spent.items()}
    characters = sum(map(len, texts["best path"])) / len(images)
    rows, found = [], 0.0
    for name, ms in best.items():
        added = float((ms - best["best path"]).mean())
        found = added * CHARACTERS / max(1.0, characters)
        unlike = sum(a != b for a, b in zip(texts[name], texts["best path"]))
        rows.append((name, float(ms.mean()), added, found, f"{unlike} of {len(images)}"))
    claim = Claim.at_most(f"a beam with a language model, ms added to {CHARACTERS} characters", ADDED_MS, found)
    note = f"{len(images)} lines of {characters:.1f} characters; one thread, processor time"
    return Section([Table("Decoding", COLUMNS, rows, note)], [claim], {name: ms.tolist() for name, ms in best.items()})


def _language_model(folder: Path) -> Path:
    """A model of random lines, in which each character has few likely successors."""
    characters = [one for one in Vocabulary.load(Path(default_model_dir()) / "vocab.txt").characters if one]
    path = folder / "lm.arpa"
    write_arpa(estimate(_random_lines(characters), 4, characters), str(path))
    return path


def _random_lines(characters: list[str]) -> Iterator[str]:
    random = np.random.default_rng(0)
    successors = random.integers(0, len(characters), (len(characters), 8))
    for _ in range(20_000):
        at, line = int(random.integers(len(characters))), []
        for choice in random.integers(0, 8, 20).tolist():
            line.append(characters[at])
            at = int(successors[at, choice])
        yield "".join(line)
