"""Files of weights that announce more than they hold, or hold what no network has; what is made of those that fit."""

import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ms_ocr_handwritten.errors import CheckpointError
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.nets.weights import LONGEST_NAME, load_network, read_torch_file, read_weights, some_names
from ms_ocr_handwritten.recognisers import ConvNextViTConfig

TINY = ConvNextViTConfig(
    depths=(1, 1, 1, 1), dims=(4, 6, 8, 10), embed_dim=12, blocks=1, heads=3, dropout=0.0, num_classes=9
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.pt"


def archive(path: Path, compression: int = zipfile.ZIP_STORED, **entries: bytes) -> Path:
    """A zip archive of entries in this order, whose names' underscores are dots."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(f"w/{name.replace('_', '.')}", content)
    return path


# ---------------------------------------------------------------------- the archive


def test_a_compressed_archive_is_refused_before_it_is_unpacked(path):
    archive(path, zipfile.ZIP_DEFLATED, data_pkl=b"\x80\x02.", data=bytes(10**6))
    said = f"w.pt: announces more than its {path.stat().st_size} bytes hold, as only a compressed archive does"
    with pytest.raises(CheckpointError, match=said):
        read_torch_file(path)


def test_a_pickle_over_the_limit_is_refused(path):
    torch.save({"a": torch.arange(3.0)}, path)
    with zipfile.ZipFile(path) as file:
        (size,) = (entry.file_size for entry in file.infolist() if entry.filename.endswith(".pkl"))
    assert read_torch_file(path, size)["a"].tolist() == [0, 1, 2]
    with pytest.raises(CheckpointError, match=f"w.pt: its pickle has {size} bytes, over the limit of {size - 1}$"):
        read_torch_file(path, size - 1)


@pytest.mark.parametrize("operation", [b"c", b"(i"], ids=["GLOBAL", "INST"])
@pytest.mark.parametrize("longer", [0, 1])
def test_names_of_classes_are_not_searched_beyond_what_a_name_may_be(path, operation, longer):
    """A longer one is told by its length; any other is refused by PyTorch."""
    name = b"a" * (LONGEST_NAME + longer - 2) + b"\nb"  # the two are joined by a space
    archive(path, version=b"3\n", data_pkl=b"\x80\x02" + operation + name + b"\n.")
    with pytest.raises(CheckpointError, match="w.pt: ") as caught:
        read_torch_file(path)
    assert (f"refused, it names a class of {LONGEST_NAME + 1} letters" in str(caught.value)) == bool(longer)


def allocate(*_: object, **__: object) -> Tensor:
    return torch.empty(2**55)  # as much as no machine has


def exhausted(*_: object, **__: object) -> Tensor:
    raise MemoryError


@pytest.mark.parametrize("load", [allocate, exhausted])
def test_a_lack_of_memory_is_told_as_one(path, load, monkeypatch):
    torch.save({}, path)
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(CheckpointError, match="w.pt: there is not enough memory to read it; close other programs"):
        read_torch_file(path)


# ---------------------------------------------------------------------- the tensors

COUNT = "batch_norm.num_batches_tracked"


@pytest.mark.parametrize(
    "name, value, kind",
    [
        ("a", lambda: torch.eye(3).to_sparse(), "torch.float32, torch.sparse_coo, on cpu"),
        ("a", lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]), "nested"),
        ("a", lambda: torch.empty(3, device="meta"), "torch.float32, torch.strided, on meta"),
        ("a", lambda: torch.zeros(3, dtype=torch.int64), "torch.int64, torch.strided, on cpu"),
        ("a", lambda: torch.zeros(3, dtype=torch.bool), "torch.bool, torch.strided, on cpu"),
        (COUNT, lambda: torch.tensor(3, dtype=torch.int32), "torch.int32, torch.strided, on cpu"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_no_dense_tensor_of_floating_point_is_named(path, name, value, kind):
    torch.save({"good": torch.zeros(2), name: value()}, path)
    with pytest.raises(CheckpointError, match=f"^{path}: {name} is {kind}; dense tensors of floating point on the CPU"):
        read_weights(path)


def test_numbers_of_every_precision_and_counts_of_batches_are_taken(path):
    kinds = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
    weights = {str(kind): torch.tensor([1.5, -2], dtype=kind) for kind in kinds} | {COUNT: torch.tensor(7)}
    torch.save(weights, path)
    found = read_weights(path)
    assert {name: (value.dtype, value.tolist()) for name, value in found.items()} == {
        **{str(kind): (kind, [1.5, -2.0]) for kind in kinds},
        COUNT: (torch.int64, 7),
    }


def test_more_numbers_than_the_file_has_bytes_for_are_refused(path):
    torch.save({"a": torch.zeros(1).expand(10**6)}, path)
    most = 4 * path.stat().st_size
    with pytest.raises(CheckpointError, match=f"its tensors have 4000000 bytes, .* cannot hold more than {most}$"):
        read_weights(path)


# ---------------------------------------------------------------------- the network


@pytest.fixture
def network() -> ConvNextViT:
    torch.manual_seed(0)
    return ConvNextViT(TINY)


@pytest.mark.parametrize("inferring", [False, True])
def test_a_loaded_network_can_learn_wherever_it_was_loaded(network, path, inferring):
    torch.save(network.state_dict(), path)
    with torch.inference_mode(inferring):
        loaded = load_network(TINY, path)
    assert not any(value.is_inference() for value in loaded.state_dict().values())
    grey = torch.rand(1, 1, 32, 300)
    for one in (network, loaded):
        one.train().classify(one.encode(grey)).square().sum().backward()
    for ours, theirs in zip(loaded.parameters(), network.parameters()):
        assert (ours.grad is None) == (theirs.grad is None)
        assert ours.grad is None or torch.equal(ours.grad, theirs.grad)


def test_names_that_share_their_numbers_in_a_file_do_not_in_the_network(network, path):
    weights = network.state_dict()
    weights["vitstr.norm.weight"] = weights["vitstr.norm.bias"] = torch.arange(12.0)
    torch.save(weights, path)
    norm = load_network(TINY, path).vitstr.norm
    with torch.no_grad():
        norm.weight.zero_()
    assert norm.bias.tolist() == list(range(12))


def test_the_first_three_of_many_names():
    assert some_names(["a"]) == "a" and some_names(["a", "b", "c"]) == "a, b, c"
    assert some_names(["a", "b", "c", "d"]) == "4, the first a, b, c"
