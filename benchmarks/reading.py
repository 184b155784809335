"""Reading with the official size: ModelScope's builtin and this package, the same weights, the same lines.

Single calls for lines of one, two and three chunks, then lists: the builtin in its fastest way of reading lists, this
package through the pipeline with batch_size. In fp32 every text must equal the builtin's, except for lines
in which the builtin's own two best logits of a column tie; else the run stops.
"""

import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from clock import Timing, ratio, single_calls, whole_lists
from facts import has_bf16
from floor import Floor, chunk_flop
from images import CHUNK_WIDTHS, evenly, folder_lines, inked, mixed
from options import Options
from peers import Builtin, OwnPipeline, official_model_dir, those_there_are
from rapidfuzz.distance import Levenshtein
from report import Claim, Section, Table, progress
from tiles import tile_line

from ms_ocr_handwritten.geometry import OFFICIAL_WIDTH, scaled_width
from ms_ocr_handwritten.recognisers import ConvNextViTConfig

TIE = 1e-5  # of the largest logit, as in tests/test_parity.py
COLUMNS = (
    "lines",
    "reader",
    "ms a line",
    "builtin / ours",
    "% of the products' floor",
    "texts equal to the builtin's",
    "% of chunks read twice",
)
PROMISED = {  # (lines, requested precision): builtin / ours
    ("mixed widths", "fp32"): 3.0,
    ("one chunk", "auto"): 8.0,
    ("mixed widths", "auto"): 6.0,
    ("three chunks", "auto"): 3.5,
}


def run(options: Options) -> Section:
    with tempfile.TemporaryDirectory() as folder:
        return Reading(options, official_model_dir(Path(folder))).run()


class Reading:
    """The readers, what they read, and the results."""

    def __init__(self, options: Options, model_dir: str) -> None:
        self.options = options
        self.own = {precision: OwnPipeline(model_dir, options.device, precision) for precision in ("fp32", "auto")}
        if has_bf16(options.device):
            self.own["bf16"] = OwnPipeline(model_dir, options.device, "bf16")
        peers, self.missing = those_there_are([partial(Builtin, model_dir, options.device)])
        self.builtin = peers[0] if peers else None
        self.readers = [*peers, *self.own.values()]
        self.floor = Floor([reader.precision for reader in self.own.values()], options.device)
        self.flop, self.samples, self.claims = chunk_flop(ConvNextViTConfig()), {}, []

    def run(self) -> Section:
        random = np.random.default_rng(0)
        calls = {
            f"{chunks} chunk{'s' * (chunks > 1)}": [tile_line(width, random)] for chunks, width in CHUNK_WIDTHS.items()
        }
        rows = [row for name, images in calls.items() for row in self._rows(name, images, single_calls)]
        lists = self._lists(random)
        if self.builtin:
            self.builtin.choose_batch_size(evenly(lists["mixed widths"], 32))
        list_rows = [row for name, images in lists.items() for row in self._rows(name, images, whole_lists)]
        self.samples["products, FLOP/s"] = self.floor.samples
        notes = [*self.missing, self.floor.note(), f"a chunk is {self.flop / 1e9:.2f} GFLOP"]
        return Section(
            [
                Table("Official size: one line at a time", COLUMNS, rows, "; ".join(notes)),
                Table(f"Official size: lists of {self.options.list_size} lines", COLUMNS, list_rows, self._list_note()),
            ],
            self.claims,
            self.samples,
        )

    def _lists(self, random: np.random.Generator) -> dict[str, list[np.ndarray]]:
        count = self.options.list_size
        lists = {
            "one chunk": [tile_line(CHUNK_WIDTHS[1], random) for _ in range(count)],
            "mixed widths": mixed(count, random),
            "three chunks": [tile_line(CHUNK_WIDTHS[3], random) for _ in range(count)],
        }
        if self.options.images:  # grey, which both read alike; wider lines are squeezed only by the builtin
            given = [cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in folder_lines(self.options.images)]
            narrow = [image for image in given if 0 < scaled_width(*image.shape[::-1]) <= OFFICIAL_WIDTH]
            if narrow:
                lists["images given"] = evenly(narrow, count)
        return lists

    def _rows(self, name: str, images: list[np.ndarray], measure) -> list[tuple]:
        """Measure, compare the texts, and record the promised ratios for lists."""
        progress(f"reading: {name}, {measure.__name__}")
        rounds = self.options.rounds if measure is single_calls else self.options.heavy_rounds
        before = {asked: reader.counts for asked, reader in self.own.items()}
        timings = measure(self.readers, images, rounds, self.floor.sample)
        self.samples[f"{measure.__name__}: {name}"] = {reader: timing.ms for reader, timing in timings.items()}
        peer = timings[self.builtin.name] if self.builtin else None
        chunks = sum(map(inked, images)) / len(images)
        rows = [(name, self.builtin.name, peer.median, None, None, None, None)] if peer else []
        for asked, reader in self.own.items():
            timing = timings[reader.name]
            faster = ratio(peer.ms, timing.ms) if peer else None
            twice, computed = (after - then for after, then in zip(reader.counts, before[asked]))
            rows.append(
                (
                    name,
                    reader.name,
                    timing.median,
                    faster,
                    self.floor.share(reader.precision, self.flop * chunks, timing.median),
                    self._equal(images, peer, timing, asked == "fp32") if peer else None,
                    100 * twice / computed,
                )
            )
            if measure is whole_lists and (name, asked) in PROMISED:
                self.claims.append(
                    Claim.at_least(f"list of {name}, {asked}: builtin / ours", PROMISED[name, asked], faster)
                )
        return rows

    def _equal(self, images: list[np.ndarray], peer: Timing, own: Timing, exact: bool) -> str:
        """How many texts equal the builtin's. Exits if `exact` and one differs without being a tie."""
        unequal = [index for index, texts in enumerate(zip(peer.texts, own.texts, strict=True)) if len(set(texts)) > 1]
        counted = f"{len(images) - len(unequal)} of {len(images)}"
        if not unequal:
            return counted
        if not exact:
            distance = sum(Levenshtein.distance(*texts) for texts in zip(peer.texts, own.texts))
            return f"{counted} ({100 * distance / sum(map(len, peer.texts)):.1f} % of characters differ)"
        for index in unequal:
            if (gap := self.builtin.gap(images[index])) > TIE:
                raise SystemExit(
                    f"line {index} ({images[index].shape[1]} px): the texts differ in fp32, and the "
                    f"builtin's nearest logits are {gap:.1e} of the greatest apart:\n"
                    f"{peer.texts[index]}\n{own.texts[index]}"
                )
        return f"{counted}, {len(unequal)} ties"

    def _list_note(self) -> str:
        widths = (
            f"mixed widths: uniform from 32 to {OFFICIAL_WIDTH} px at 32 px height; tiles of noise, read by a "
            "fitted head"
        )
        if not self.builtin:
            return widths
        size = self.builtin.batch_size
        return f"{widths}; the builtin reads a list fastest {f'with batch_size={size}' if size else 'one by one'}"
