"""Descriptions of the recognisers: the kinds of network that `model.recognizer` names, their line layout and sizes.

Each kind is described by one class: its fields are the sizes that `model.network` may set, its class attributes what
is fixed. All other code uses this description; `nets.weights.NETWORKS` maps it to the network itself. All kinds read
lines of 32 px height in columns of 4 px (`geometry`).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from .config_section import Section
from .geometry import CHUNK_WIDTH, CHUNKED, LINE_HEIGHT, WHOLE, Layout

PARTS = ("trunk", "encoder", "head")  # parts that a network may have
DEFAULT = "ConvNextViT"  # if a configuration names none


class NetworkConfig:
    """Sizes of a network; the class attributes are common to all networks of the kind."""

    recognizer: ClassVar[str]  # its name in `model.recognizer`
    layout: ClassVar[Layout]  # how it expects lines
    image_widths: ClassVar[tuple[int, ...]]  # px, accepted as `model.inference_kwargs.img_width`; the first is used
    first_id: ClassVar[int]  # class of the first line of vocab.txt
    parts: ClassVar[tuple[str, ...]]  # parts that `train.freeze` may name
    num_classes: int  # C, the blank (0) included

    def grown(self, num_classes: int) -> "NetworkConfig":
        """The same with another number of classes."""
        return replace(self, num_classes=num_classes)  # type: ignore[type-var]  # each kind is a dataclass

    @property
    def blocks_in_all(self) -> int:
        """Total number of repeated blocks; each has several tensors, so a weights file has more tensors than this."""
        return 0

    @classmethod
    def parse(cls, sizes: Section) -> "NetworkConfig":
        """Parse the section `model.network`. Raises ConfigurationError, naming the dotted key."""
        raise NotImplementedError


@dataclass(frozen=True)
class ConvNextViTConfig(NetworkConfig):
    """Chunks of 300 px, read independently; the defaults are those of the official model (19.18 M parameters)."""

    depths: tuple[int, ...] = (3, 3, 8, 3)  # ConvNeXt blocks per stage
    dims: tuple[int, ...] = (96, 192, 256, 512)  # channels per stage
    layer_scale: float = 1e-6  # initial value of ConvNeXt's gamma
    drop_path: float = 0.0  # stochastic depth rate of the deepest ConvNeXt block in training, [0, 1)
    embed_dim: int = 192  # D, features per column
    blocks: int = 12  # ViT blocks
    heads: int = 3
    mlp_ratio: float = 4.0
    dropout: float = 0.1  # of the ViT in training, [0, 1)
    num_classes: int = 7644  # C, blank (0) and the unused id 1 included

    recognizer = "ConvNextViT"
    layout = CHUNKED
    image_widths = (CHUNKED.official_width, CHUNK_WIDTH)  # older files give the chunk's width, newer ones the canvas's
    first_id = 2
    parts = PARTS

    @property
    def blocks_in_all(self) -> int:
        return sum(self.depths) + self.blocks

    @classmethod
    def parse(cls, sizes: Section) -> "ConvNextViTConfig":
        default = cls()
        network = cls(
            depths=_sizes(sizes, "depths", default.depths),
            dims=_sizes(sizes, "dims", default.dims),
            layer_scale=sizes.number("layer_scale", float, default.layer_scale, least=0),
            drop_path=sizes.number("drop_path", float, default.drop_path, least=0, below=1),
            embed_dim=sizes.number("embed_dim", int, default.embed_dim, least=1),
            blocks=sizes.number("blocks", int, default.blocks, least=0),
            heads=sizes.number("heads", int, default.heads, least=1),
            mlp_ratio=sizes.number("mlp_ratio", float, default.mlp_ratio, above=0),
            dropout=sizes.number("dropout", float, default.dropout, least=0, below=1),
            num_classes=sizes.number("num_classes", int, default.num_classes, least=3),
        )
        sizes.finish()
        if network.embed_dim % network.heads:
            raise sizes.fail("embed_dim", f"is {network.embed_dim}, not a multiple of heads ({network.heads})")
        return network


@dataclass(frozen=True)
class CrnnConfig(NetworkConfig):
    """Whole lines, two recurrent layers; the defaults are those of the official model (11.97 M parameters)."""

    channels: tuple[int, ...] = (64, 128, 256, 512)  # of the convolutions
    hidden: int = 256  # LSTM units per direction; twice as many features per column
    num_classes: int = 7644  # C, the blank (0) included

    recognizer = "CRNN"
    layout = WHOLE
    image_widths = (WHOLE.official_width,)
    first_id = 1
    parts = PARTS

    @classmethod
    def parse(cls, sizes: Section) -> "CrnnConfig":
        default = cls()
        network = cls(
            channels=_sizes(sizes, "channels", default.channels),
            hidden=sizes.number("hidden", int, default.hidden, least=1),
            num_classes=sizes.number("num_classes", int, default.num_classes, least=2),
        )
        sizes.finish()
        return network


@dataclass(frozen=True)
class LightweightEdgeConfig(NetworkConfig):
    """Whole lines, small convolutions of fixed sizes (1.96 M parameters in the official model)."""

    num_classes: int = 7644  # C, blank (0) and the unused id 1 included

    recognizer = "LightweightEdge"
    layout = WHOLE
    image_widths = (WHOLE.official_width,)
    first_id = 2
    parts = ("trunk", "head")

    @classmethod
    def parse(cls, sizes: Section) -> "LightweightEdgeConfig":
        network = cls(num_classes=sizes.number("num_classes", int, cls.num_classes, least=3))
        sizes.finish()
        return network


RECOGNISERS: dict[str, type[NetworkConfig]] = {
    kind.recognizer: kind for kind in (ConvNextViTConfig, CrnnConfig, LightweightEdgeConfig)
}


def parse_model(model: Section) -> NetworkConfig:
    """Parse the section `model` of a configuration. Raises ConfigurationError, naming the dotted key."""
    model.take("type", str)
    kind = RECOGNISERS[model.choice("recognizer", tuple(RECOGNISERS), DEFAULT)]
    _check_canvas(model.section("inference_kwargs"), kind)
    network = kind.parse(model.section("network"))
    model.finish()
    return network


def _check_canvas(inference: Section, kind: type[NetworkConfig]) -> None:
    """Raise ConfigurationError unless `inference_kwargs` matches what the kind always does."""
    height = inference.take("img_height", int, LINE_HEIGHT)
    if height != LINE_HEIGHT:
        raise inference.fail("img_height", f"is {height}; {kind.recognizer} reads lines of {LINE_HEIGHT} px")
    meant, *former = kind.image_widths
    width = inference.take("img_width", int, meant)
    if width not in kind.image_widths:
        older = "".join(f" (or, in older files, {one})" for one in former)
        raise inference.fail("img_width", f"is {width}; {meant}{older} expected")
    if inference.take("do_chunking", bool, kind.layout.chunked) is not kind.layout.chunked:
        does = f"always reads chunks of {CHUNK_WIDTH} px" if kind.layout.chunked else "reads lines as a whole"
        raise inference.fail("do_chunking", f"is {str(not kind.layout.chunked).lower()}; {kind.recognizer} {does}")
    inference.finish()


def _sizes(section: Section, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
    sizes = section.take(key, object, default)
    if not isinstance(sizes, (list, tuple)) or len(sizes) != 4 or not all(type(n) is int and n > 0 for n in sizes):
        raise section.fail(key, f"is {sizes!r}; four positive whole numbers expected, one per stage")
    return tuple(sizes)
