"""The network against ModelScope's own on the same weights, at three depths; strict loading of its weights."""

import contextlib
import dataclasses
import pickle
import time
from pathlib import Path

import pytest
import torch
from modelscope.models.cv.ocr_recognition.modules.ConvNextViT.main_model import ConvNextViT as UpstreamConvNextViT
from torch.nn import functional as F

from ms_ocr_handwritten.errors import CheckpointError
from ms_ocr_handwritten.nets.convnext import Block, stochastic_depth
from ms_ocr_handwritten.nets.convnextvit import ConvNextViT
from ms_ocr_handwritten.nets.dropout import dropout
from ms_ocr_handwritten.nets.network import rgb_to_grey
from ms_ocr_handwritten.nets.vit import Attention, ViTEncoder
from ms_ocr_handwritten.nets.weights import load_network, load_weights, read_weights
from ms_ocr_handwritten.recognisers import ConvNextViTConfig

TINY = ConvNextViTConfig(
    depths=(1, 1, 1, 1),
    dims=(4, 6, 8, 10),
    layer_scale=1.0,
    embed_dim=12,
    blocks=1,
    heads=3,
    dropout=0.0,
    num_classes=9,
)


# ---------------------------------------------------------------------- parity


@pytest.fixture(scope="module")
def pair() -> tuple[torch.nn.Module, ConvNextViT]:
    """Upstream's network and ours with the same random weights, of which each matters to the result."""
    torch.manual_seed(0)
    upstream = UpstreamConvNextViT()
    with torch.no_grad():
        for name, parameter in upstream.named_parameters():
            if name.endswith("gamma"):
                parameter.uniform_(0.3, 0.7)
            elif name.endswith(("pos_embed", "cls_token")):
                parameter.normal_()
            elif "norm" in name or name.endswith("bias"):
                parameter.add_(0.2 * torch.randn_like(parameter))
    ours = ConvNextViT()
    load_weights(ours, upstream.state_dict(), "upstream")
    return upstream.eval(), ours.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Chunks of two lines: RGB (6, 3, 32, 300) in [0, 1], the last one black."""
    images = torch.rand(6, 3, 32, 300, generator=torch.Generator().manual_seed(1))
    images[5] = 0.0
    return images


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert expected.std() > 0.1, "a degenerate oracle shows nothing"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_names_and_shapes_are_upstreams(pair):
    upstream, ours = ({name: tuple(value.shape) for name, value in network.state_dict().items()} for network in pair)
    assert ours == upstream and list(ours) == list(upstream)
    assert sum(parameter.numel() for parameter in pair[1].parameters()) == 19_177_980


def test_what_norms_add_to_variances_is_upstreams(pair):
    """It shows where a chunk is black alone."""
    upstream, ours = (
        {name: module.eps for name, module in network.named_modules() if hasattr(module, "eps")} for network in pair
    )
    assert ours == upstream and len(ours) > 40


@torch.no_grad()
def test_trunk_and_encoder_equal_upstreams(pair, images):
    upstream, ours = pair
    grey = rgb_to_grey(images[:2])
    expected, features = upstream.cnn_model(grey), ours.cnn_model(grey)
    assert_close(features, expected)
    assert_close(ours.vitstr(features), upstream.vitstr.forward_features(expected))


@torch.no_grad()
def test_logits_equal_upstreams(pair, images):
    logits = pair[1](images)
    assert logits.shape == (2, 201, 7644)
    assert_close(logits, pair[0](images))


# ---------------------------------------------------------------------- train and eval mode


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_explicit_attention_of_training_equals_the_fused_one(dtype):
    torch.manual_seed(2)
    attention = Attention(24, heads=3, dropout=0.0).to(dtype)
    x = torch.randn(2, 75, 24, dtype=dtype)
    trained, evaluated = attention.train()(x), attention.eval()(x)
    assert trained.std() > 0.05
    torch.testing.assert_close(trained, evaluated, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-2)


def test_each_dropout_stands_in_its_place():
    """The encoder in training mode, written out by hand: after the positions, in the attention's weights, behind its
    projection, behind the activation and behind the second layer of each MLP. One left out, and the rest draws anew."""
    config = dataclasses.replace(TINY, dropout=0.3)
    torch.manual_seed(0)
    encoder = ViTEncoder(config).train()
    torch.nn.init.normal_(encoder.pos_embed)
    features = torch.randn(2, config.dims[-1], 1, 75)

    def drop(x: torch.Tensor) -> torch.Tensor:
        return dropout(x, 0.3, training=True)

    def by_hand() -> torch.Tensor:
        x = drop(encoder.patch_embed(features) + encoder.pos_embed)
        for block in encoder.blocks:
            y = block.norm1(x)
            parts = block.attn.qkv(y).view(2, 75, 3, config.heads, -1).permute(2, 0, 3, 1, 4)
            q, k, v = parts
            weights = drop((q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1))
            x = x + drop(block.attn.proj((weights @ v).transpose(1, 2).reshape(2, 75, -1)))
            y = drop(F.gelu(block.mlp.fc1(block.norm2(x))))
            x = x + drop(block.mlp.fc2(y))
        return encoder.norm(x)

    torch.manual_seed(1)
    found = encoder(features)
    torch.manual_seed(1)
    torch.testing.assert_close(found, by_hand())


def test_dropout_acts_in_training_alone():
    torch.manual_seed(3)
    network, grey = ConvNextViT(dataclasses.replace(TINY, dropout=0.5)), torch.rand(2, 1, 32, 300)
    assert torch.equal(network.eval().encode(grey), network.encode(grey))
    assert not torch.equal(network.train().encode(grey), network.encode(grey))


def test_stochastic_depth_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(4)
    branch = torch.full((4000, 2, 3, 5), 2.0)
    dropped = stochastic_depth(branch, 0.25, training=True)
    assert dropped.unique().tolist() == pytest.approx([0.0, 2.0 / 0.75])
    assert torch.equal(dropped.flatten(1).amin(1), dropped.flatten(1).amax(1))
    assert dropped.mean().item() == pytest.approx(2.0, abs=0.1)
    assert stochastic_depth(branch, 0.25, training=False) is stochastic_depth(branch, 0.0, training=True) is branch


def test_a_block_drops_its_branch_for_whole_samples_in_training_alone():
    torch.manual_seed(6)
    block, x = Block(6, 1.0, drop_path=0.25), torch.randn(200, 6, 1, 75)
    branch = block.eval()(x) - x
    learnt = block.train()(x) - x
    dropped = (learnt == 0).flatten(1).all(1)
    assert 30 <= dropped.sum() <= 70  # 50, 6 a standard deviation
    torch.testing.assert_close(learnt[~dropped], branch[~dropped] / 0.75, rtol=1e-4, atol=1e-5)


def test_under_bf16_a_block_reads_and_learns_in_bf16():
    block, x = Block(6, 1.0, drop_path=0.0), torch.randn(2, 6, 4, 75, dtype=torch.bfloat16)
    for learning in (False, True):
        with torch.autocast("cpu", torch.bfloat16):
            assert block.train(learning)(x).dtype is torch.bfloat16


def test_drop_path_grows_with_depth():
    network = ConvNextViT(dataclasses.replace(TINY, depths=(1, 2, 1, 1), drop_path=0.4))
    rates = [block.drop_path for stage in network.cnn_model.stages for block in stage]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


# ---------------------------------------------------------------------- loading


@pytest.fixture
def network() -> ConvNextViT:
    torch.manual_seed(5)
    return ConvNextViT(TINY)


def saved(value, path: Path) -> Path:
    torch.save(value, path)
    return path


@pytest.mark.parametrize("prefix", ["", "recognizer.", "module.", "module.recognizer.", "recognizer.module."])
def test_prefixes_of_fine_tuned_files_are_removed(network, tmp_path, prefix):
    path = saved({prefix + name: value for name, value in network.state_dict().items()}, tmp_path / "w.pt")
    loaded = load_network(TINY, path)
    assert not loaded.training
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_weights_wrapped_as_state_dict(network, tmp_path):
    weights = read_weights(saved({"state_dict": network.state_dict(), "epoch": 3}, tmp_path / "w.pt"))
    assert weights.keys() == network.state_dict().keys()


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda w: w.pop("vitstr.head.bias"), "missing: vitstr.head.bias"),
        (lambda w: w.update(extra=torch.zeros(1)), "unexpected: extra"),
        (
            lambda w: w.update({"vitstr.head.bias": torch.zeros(8)}),
            r"other shape: vitstr.head.bias is \(8,\), expected \(9,\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_copied(network, change, message):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weights = {name: value + 1 for name, value in before.items()}
    change(weights)
    with pytest.raises(CheckpointError, match=f"^some.pt: does not fit .*model.network.*{message}"):
        load_weights(network, weights, "some.pt")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_all_that_does_not_fit_is_listed_at_once(network):
    weights = network.state_dict()
    weights["other"] = weights.pop("vitstr.pos_embed")
    with pytest.raises(CheckpointError, match="missing: vitstr.pos_embed; unexpected: other"):
        load_weights(network, weights, "some.pt")


def test_of_many_names_the_first_three_are_told(network):
    names = sorted(name for name in network.state_dict() if name.startswith("cnn_model."))
    others = {name: value for name, value in network.state_dict().items() if name not in names}
    with pytest.raises(CheckpointError) as caught:
        load_weights(network, others, "some.pt")
    assert str(caught.value).endswith(f"missing: {len(names)}, the first {', '.join(names[:3])}") and len(names) > 20


def test_names_equal_but_for_their_prefix_are_refused(tmp_path):
    path = saved({"module.a": torch.zeros(1), "recognizer.a": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(CheckpointError, match="w.pt: holds names that differ only by their prefix"):
        read_weights(path)


@pytest.mark.parametrize("value", [[torch.zeros(1)], torch.zeros(2), {"a": 1}, {0: torch.zeros(1)}, "text", None])
def test_files_of_something_else_are_refused(tmp_path, value):
    with pytest.raises(CheckpointError, match="w.pt: holds no mapping of parameter names to tensors"):
        read_weights(saved(value, tmp_path / "w.pt"))


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_refused(network, tmp_path, part):
    whole = saved(network.state_dict(), tmp_path / "whole.pt").read_bytes()
    (tmp_path / "w.pt").write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(CheckpointError, match="w.pt"):
        read_weights(tmp_path / "w.pt")


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="none.pt: no such file"):
        read_weights(tmp_path / "none.pt")
    with pytest.raises(CheckpointError, match="not a PyTorch file"):
        read_weights(tmp_path)


class Malicious:
    """Unpickled, this writes a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self):
        return Path.touch, (self.witness,)


@pytest.mark.parametrize(
    "save",
    [
        lambda value, path: torch.save(value, path),
        lambda value, path: torch.save(value, path, _use_new_zipfile_serialization=False),
        lambda value, path: path.write_bytes(pickle.dumps(value)),
    ],
    ids=["zip", "legacy", "pickle"],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickles_that_run_code_are_refused_and_do_not_run(tmp_path, save):
    witness = tmp_path / "it_ran"
    path = tmp_path / "w.pt"
    save({"vitstr.head.bias": Malicious(witness)}, path)
    with pytest.raises(CheckpointError, match="w.pt: refused.*can run code"):
        read_weights(path)
    assert not witness.exists()
    with contextlib.suppress(RuntimeError):  # a bare pickle is no PyTorch file, which is seen too late
        torch.load(path, weights_only=False)
    assert witness.exists()  # so the trap was live


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_raise_nothing_but_checkpoint_errors(network, tmp_path, zipped):
    torch.save(network.state_dict(), tmp_path / "whole.pt", _use_new_zipfile_serialization=zipped)
    whole, path = (tmp_path / "whole.pt").read_bytes(), tmp_path / "w.pt"
    random = torch.Generator().manual_seed(6)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for position in torch.randint(0, len(whole), (20,), generator=random).tolist():
            damaged[position] = int(torch.randint(0, 256, (), generator=random))
        path.write_bytes(damaged)
        try:
            load_weights(network, read_weights(path), path)
        except CheckpointError:
            refused += 1
    assert refused > 20


def test_a_file_of_half_precision_gives_a_network_of_its_own_numbers_in_fp32(network, tmp_path):
    path = saved({name: value.half() for name, value in network.state_dict().items()}, tmp_path / "w.pt")
    loaded = load_network(TINY, path)
    assert all(value.dtype is torch.float32 and value.is_contiguous() for value in loaded.state_dict().values())
    assert torch.equal(loaded.vitstr.head.weight, network.vitstr.head.weight.half().float())
    assert all(parameter.requires_grad for parameter in loaded.parameters())  # as of a network that is made to learn


@pytest.mark.parametrize(
    "sizes", [{"num_classes": 6 * 10**7}, {"mlp_ratio": 1e6}, {"dims": (16, 24, 32, 12_000)}, {"blocks": 10**6}]
)
def test_no_memory_is_taken_for_a_network_that_the_file_does_not_hold(network, tmp_path, sizes):
    path = saved(network.state_dict(), tmp_path / "w.pt")
    start = time.process_time()
    with pytest.raises(CheckpointError, match="w.pt: does not fit the network of configuration.json"):
        load_network(dataclasses.replace(TINY, **sizes), path)
    assert time.process_time() - start < 2  # 25 s and more, or gigabytes, if it were built first


def test_learning_computes_what_reading_does_and_its_gradients():
    """Where nothing is dropped; while learning, the layer scale is folded into the weights behind it."""
    torch.manual_seed(0)
    block, x = Block(6, 1.0, drop_path=0.0), torch.randn(2, 6, 4, 75, requires_grad=True)
    torch.nn.init.normal_(block.gamma)
    upstream = torch.randn(2, 6, 4, 75)
    found = []
    for learning in (False, True):
        y = block.train(learning)(x)
        found.append([y, *torch.autograd.grad(y, [x, *block.parameters()], upstream)])
    for read, learnt in zip(*found):
        torch.testing.assert_close(learnt, read, rtol=1e-4, atol=1e-4)
