"""Lines of several sources in fixed shares, for training alongside the synthetic chunks."""

import json
from pathlib import Path

import numpy as np
from pen_lines import PenSamples
from real_lines import RealLines
from torch.utils.data import Dataset

from ms_ocr_handwritten.lmdb.store import LmdbReader
from ms_ocr_handwritten.synth.unipen import PenLines
from ms_ocr_handwritten.training.dataset import Sample
from ms_ocr_handwritten.vocab import Vocabulary

ENDLESS = 2**40


class Mixture(Dataset):
    """Samples number `start` to `stop` - 1 of an endless sequence: out of sum(shares), `share` from each source.

    Every source yields its own samples in order, so that a resumed run continues with the next ones.
    """

    def __init__(self, sources: list[Dataset], shares: list[int], start: int, stop: int, seed: int) -> None:
        self.sources, self.shares, self.start, self.stop, self.seed = sources, shares, start, stop, seed
        self._slots = np.repeat(np.arange(len(shares)), shares)

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: int) -> Sample:
        round_, place = divmod(index + self.start, len(self._slots))
        slots = np.random.default_rng((self.seed, round_)).permutation(self._slots)
        source = int(slots[place])
        return self.sources[source][round_ * self.shares[source] + int((slots[:place] == source).sum())]


def open_source(words: list[str], vocabulary: Vocabulary, spelt: list[str], seed: int, strength: float) -> Dataset:
    """The source of `--real SOURCE [SHARE [CUTS]]`: pen trajectories (a file) or an LMDB of real lines.

    spelt: words composed of single letters of one pen; strength: of the augmentation of real lines.
    """
    path = Path(words[0])
    if path.is_file():
        return PenSamples(PenLines(path, spelt), vocabulary, seed)
    cuts = json.loads(Path(words[2]).read_text(encoding="utf-8")) if len(words) > 2 else None
    return RealLines(LmdbReader(words[0]), vocabulary, cuts, 0, ENDLESS, seed, strength)
