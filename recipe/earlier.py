"""A buffer of earlier chunks on the training device, which are reused with slight changes.

A GPU trains several times as fast as its processor draws chunks. A reused chunk, shifted, slanted, with another pen and
paper, is nearly as useful as a new one, and costs no processor time.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from ms_ocr_handwritten.geometry import CHUNK_COLUMNS, CHUNK_WIDTH, LINE_HEIGHT

KEPT = 2**18  # chunks at most, 2.4 GiB; then each new one replaces the oldest
STRETCH, SLANT = 0.06, 0.12  # of the height; px to the right for each px down
ACROSS, DOWN = 1.5, 1.2  # maximum shift in px
THINNER, THICKER = 0.35, 0.5  # as a share of the way to the lightest and to the darkest neighbour of a px
GAMMA = 0.35  # maximum logarithm of the exponent of the greys
NOISE = 0.04  # maximum standard deviation of the greys


class Earlier:
    """The newest KEPT chunks given to `keep`, each with its targets."""

    def __init__(self, device: torch.device) -> None:
        self.grey = torch.empty(KEPT, 1, LINE_HEIGHT, CHUNK_WIDTH, dtype=torch.uint8, device=device)
        self.targets = torch.empty(KEPT, 3, CHUNK_COLUMNS, dtype=torch.int16)
        self.seen = 0

    def keep(self, grey: Tensor, targets: Tensor) -> None:
        """grey (N, 1, 32, 300) in [0, 1]; targets int64 (N, 3, 75), as from ColumnDataset."""
        places = torch.arange(self.seen, self.seen + len(grey)) % KEPT
        self.grey[places.to(grey.device)] = (255 * grey).round().to(torch.uint8)
        self.targets[places] = targets.to(torch.int16)
        self.seen += len(grey)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` of the kept chunks, changed, and their targets, in the form taken by `keep`."""
        places = torch.randint(min(self.seen, KEPT), (count,))
        return changed(self.grey[places.to(self.grey.device)] / 255), self.targets[places].long()


def changed(grey: Tensor) -> Tensor:
    """Chunks (N, 1, 32, 300) in [0, 1], each randomly changed; the area after the end of the line stays 0."""

    def chance(low: float, high: float) -> Tensor:
        return torch.empty(len(grey), 1, 1, 1, device=grey.device).uniform_(low, high)

    behind = grey.amax(2, keepdim=True) == 0
    half_width, half_height = CHUNK_WIDTH / 2, LINE_HEIGHT / 2  # px that are 1 in an affine grid
    rows = torch.zeros(len(grey), 2, 3, device=grey.device)
    rows[:, 0, 0] = 1
    rows[:, 0, 1] = chance(-SLANT, SLANT).flatten() * half_height / half_width
    rows[:, 0, 2] = chance(-ACROSS, ACROSS).flatten() / half_width
    rows[:, 1, 1] = chance(1 - STRETCH, 1 + STRETCH).flatten()
    rows[:, 1, 2] = chance(-DOWN, DOWN).flatten() / half_height
    grid = F.affine_grid(rows, list(grey.shape), align_corners=False)
    found = F.grid_sample(grey, grid, padding_mode="border", align_corners=False)
    pen = chance(-THINNER, THICKER)
    lightest, darkest = F.max_pool2d(found, 3, 1, 1), -F.max_pool2d(-found, 3, 1, 1)
    found = torch.lerp(found, torch.where(pen < 0, lightest, darkest), pen.abs())
    found = found ** chance(-GAMMA, GAMMA).exp() + torch.randn_like(found) * chance(0, NOISE)
    return found.clamp(0, 1).masked_fill(behind, 0)
