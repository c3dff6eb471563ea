"""Released checkpoints in our names: plain PyTorch networks in the released layouts keep their logits."""

import argparse
import hashlib
import json
import pickle
import shutil

import numpy as np
import pytest
from harness import NAMES, assert_same, load
from small import EAGER, SETTINGS, stcli, trained, words
from test_readers import write_archive

from stcore.base.weights_file import load_weights as read_weights
from stcore.errors import UsageError
from stcore.models import build, describe, load_weights, released, torch_files
from stcore.models.description import weight_shapes

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

CLASSES = 5


def conv(inputs, outputs, stride=1, kernel=3):
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class WideBlock(nn.Module):
    """Where the width changes, both branches see the activated input."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        self.convShortcut = conv(inputs, outputs, stride, kernel=1) if inputs != outputs else None

    def forward(self, x):
        active = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return y + (x if self.convShortcut is None else self.convShortcut(active))


class WideGroup(nn.Module):
    def __init__(self, count, inputs, outputs, stride):
        super().__init__()
        blocks = [WideBlock(inputs if i == 0 else outputs, outputs, stride if i == 0 else 1) for i in range(count)]
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class Wide(nn.Module):
    """As TRADES has it, with the group that is never called."""

    def __init__(self, depth, width, unused=True, channels=3):
        super().__init__()
        count, widths = (depth - 4) // 6, [16 * width, 32 * width, 64 * width]
        self.conv1 = conv(channels, 16)
        self.block1 = WideGroup(count, 16, widths[0], 1)
        if unused:
            self.sub_block1 = WideGroup(count, 16, widths[0], 1)
        self.block2 = WideGroup(count, widths[0], widths[1], 2)
        self.block3 = WideGroup(count, widths[1], widths[2], 2)
        self.bn1, self.fc = nn.BatchNorm2d(widths[2]), nn.Linear(widths[2], CLASSES)

    def forward(self, x):
        y = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(y)).mean((2, 3)))


class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = conv(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv(outputs, outputs), nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, stride, kernel=1), nn.BatchNorm2d(outputs))

    def forward(self, x):
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + self.shortcut(x))


class PreActBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv(outputs, outputs)
        self.reshapes = stride != 1 or inputs != outputs
        if self.reshapes:
            self.shortcut = nn.Sequential(conv(inputs, outputs, stride, kernel=1))

    def forward(self, x):
        active = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return y + (self.shortcut(active) if self.reshapes else x)


class Residual(nn.Module):
    """ResNet: `bn1` after the first convolution. PreActResNet: `bn` before the classifier."""

    def __init__(self, block, widths, count):
        super().__init__()
        self.conv1, inputs = conv(3, widths[0]), widths[0]
        if block is Block:
            self.bn1 = nn.BatchNorm2d(inputs)
        for number, outputs in enumerate(widths, start=1):
            blocks = []
            for i in range(count):
                blocks.append(block(inputs, outputs, 2 if number > 1 and i == 0 else 1))
                inputs = outputs
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        if block is PreActBlock:
            self.bn = nn.BatchNorm2d(inputs)
        self.stages, self.linear = len(widths), nn.Linear(inputs, CLASSES)

    def forward(self, x):
        y = self.conv1(x)
        y = F.relu(self.bn1(y)) if hasattr(self, "bn1") else y
        for number in range(1, self.stages + 1):
            y = getattr(self, f"layer{number}")(y)
        y = F.relu(self.bn(y)) if hasattr(self, "bn") else y
        return self.linear(y.mean((2, 3)))


THIN, FULL = (16, 32, 64), (64, 128, 256, 512)
NETWORKS = {
    "wrn-16-2": lambda: Wide(16, 2),
    "wrn-10-1": lambda: Wide(10, 1, unused=False, channels=1),
    "resnet8": lambda: Residual(Block, THIN, 1),
    "resnet18": lambda: Residual(Block, FULL, 2),
    "preact-resnet8": lambda: Residual(PreActBlock, THIN, 1),
    "preact-resnet18": lambda: Residual(PreActBlock, FULL, 2),
}


def plain(name):
    """With batch norms that are not the identity: what is exchanged shows."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = NETWORKS[name]()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.1)
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2)
    return network.eval()


def imported(tmp_path, content, *args):
    """Saved as a checkpoint, imported by the command."""
    torch.save(content, tmp_path / "released.pt")
    said = stcli("import", tmp_path / "released.pt", "--out", tmp_path / "ours.safetensors", *args)
    assert said.code == 0, said.err
    return (*read_weights(tmp_path / "ours.safetensors"), said.out)


def refusal(tmp_path, content, *args):
    """Saved as a checkpoint, refused by the command."""
    torch.save(content, tmp_path / "released.pt")
    return refusal_of(tmp_path / "released.pt", *args)


def refusal_of(path, *args):
    out = path.parent / "ours.safetensors"
    said = stcli("import", path, "--out", out, *args)
    assert (said.code, said.out) == (2, "")
    assert not out.exists()
    return said.err


# The networks


@pytest.mark.parametrize("name", NETWORKS)
def test_the_logits_are_the_released_networks(tmp_path, name):
    network = plain(name)
    weights, about, _ = imported(tmp_path, network.state_dict())
    channels = network.conv1.in_channels
    assert (about["model"], about["num_classes"]) == (name, str(CLASSES))
    assert about["image_shape"] == f"32x32x{channels}"
    ours = build(about["model"], "torch", num_classes=CLASSES, in_channels=channels).eval()
    load_weights(ours, weights)
    images = torch.rand(4, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images)
        torch.testing.assert_close(ours(images), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_keras_has_the_same_logits(tmp_path):
    load("keras")
    network = plain("wrn-16-2")
    weights, about, _ = imported(tmp_path, network.state_dict())
    ours = build(about["model"], "keras", num_classes=CLASSES, image_size=(16, 16))
    load_weights(ours, weights)
    images = np.random.default_rng(0).uniform(size=(4, 16, 16, 3)).astype("float32")
    with torch.no_grad():
        expected = network(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(
        ours(images, training=False), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
    )


def test_the_unused_copy_of_a_block_is_left_out_and_said(tmp_path):
    weights, _, said = imported(tmp_path, plain("wrn-16-2").state_dict())
    assert len(weights) == len(weight_shapes(describe("wrn-16-2", CLASSES)))
    # two blocks of 2 convolutions and 2 batch norms of 4 tensors, and a shortcut
    assert "left out: 21 tensors of sub_block1" in said


def test_what_names_cannot_tell_is_said(tmp_path):
    assert (
        "whose shortcut takes the activated input" in imported(tmp_path, plain("preact-resnet8").state_dict())[2]
    )


def renamed(state, **modules):
    names = {"." + ours: "." + theirs for ours, theirs in modules.items()}
    for old, new in names.items():
        state = {f".{name}".replace(old, new)[1:]: tensor for name, tensor in state.items()}
    return state


@pytest.mark.parametrize("modules", [{"linear": "fc"}, {"linear": "fc", "shortcut": "downsample"}])
def test_other_names_of_a_resnet(tmp_path, modules):
    state = plain("resnet8").state_dict()
    found = released.recognise({name: tensor.numpy() for name, tensor in renamed(state, **modules).items()})
    assert found.model == "resnet8"
    assert_same(found.weights, imported(tmp_path, state)[0])


# The files


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def normalised(state, mean, std):
    shape = (1, 3, 1, 1)
    return {"0.mean": torch.full(shape, mean), "0.std": torch.full(shape, std), **prefixed(state, "1.")}


WRAPPERS = {
    "state_dict": lambda s: {"state_dict": s, "epoch": 76, "best": 0.51},
    "model_state_dict": lambda s: {"model_state_dict": s},
    "net": lambda s: {"net": s, "acc": 83.0},
    "nested": lambda s: {"state": {"model": s}},
    "an optimizer beside it": lambda s: {
        "model": s,
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}},
    },
    "a number among the tensors": lambda s: {**s, "epoch": 3},
    "numpy scalars beside it": lambda s: {"net": s, "acc": np.float64(83.0), "epoch": np.int32(7)},
    "DataParallel": lambda s: prefixed(s, "module."),
    "compiled DataParallel": lambda s: prefixed(s, "module._orig_mod.model."),
    "averaged": lambda s: {"n_averaged": torch.tensor(7), **prefixed(s, "module.")},
    "a normalisation that does nothing": lambda s: normalised(s, 0.0, 1.0),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_wrappers_are_taken_off(tmp_path, wrap):
    state = plain("resnet8").state_dict()
    weights, about, _ = imported(tmp_path, wrap(state))
    assert about["model"] == "resnet8"
    np.testing.assert_array_equal(weights["linear.weight"], state["linear.weight"])
    assert len(weights) == len(weight_shapes(describe("resnet8", CLASSES)))


def test_of_several_state_dicts_one_is_chosen(tmp_path):
    state = plain("resnet8").state_dict()
    average = {name: tensor * 2 for name, tensor in state.items()}
    both = {"model": state, "ema": {"model_wa": average}}
    said = refusal(tmp_path, both)
    assert "'model', 'ema.model_wa'; received none. Give --key" in said
    assert "received 'model_wa'" in refusal(tmp_path, both, "--key", "model_wa")
    weights, _, _ = imported(tmp_path, both, "--key", "ema.model_wa")
    np.testing.assert_array_equal(weights["conv1.weight"], average["conv1.weight"])


def test_half_precision_becomes_single_and_double_stays(tmp_path):
    state = plain("resnet8").state_dict()
    state["conv1.weight"] = state["conv1.weight"].bfloat16()
    state["linear.weight"] = state["linear.weight"].double()
    weights, _, _ = imported(tmp_path, state)
    np.testing.assert_array_equal(weights["conv1.weight"], state["conv1.weight"].float())
    assert (weights["conv1.weight"].dtype, weights["linear.weight"].dtype) == ("float32", "float64")


def test_the_file_says_where_it_comes_from(tmp_path):
    _, about, _ = imported(tmp_path, plain("resnet8").state_dict(), "--image-size", "28")
    assert about["source"] == "released.pt"
    assert about["source_sha256"] == hashlib.sha256((tmp_path / "released.pt").read_bytes()).hexdigest()
    assert (about["image_shape"], about["format"]) == ("28x28x3", "stcore-weights-1")


def test_evaluate_takes_the_file(tmp_path):
    """Our own weights, written as PyTorch's and imported again, score as they did."""
    run = trained("torch")
    torch_files.write(tmp_path / "own.pt", run.weights("best.safetensors"))
    out = tmp_path / "best.safetensors"
    said = stcli("import", tmp_path / "own.pt", "--model", "tiny", "--image-size", 8, "--out", out)
    assert said.code == 0, said.err
    assert_same(read_weights(out)[0], run.weights("best.safetensors"))
    scores = [stcli("evaluate", run.path, "--json", *args) for args in ((), ("--weights", out))]
    own, again = (next(iter(json.loads(score.out).values())) for score in scores)
    assert own == again


def test_from_a_released_file_to_its_accuracies(tmp_path):
    """As the README has it: import, then evaluate the file alone, in either framework."""
    write_archive(tmp_path / "data", 10, "python")
    network = Wide(10, 1)
    network.fc = nn.Linear(64, 10)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "released.pt")
    out = tmp_path / "w.safetensors"
    said = stcli("import", tmp_path / "released.pt", "--out", out)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"wrn-10-1, 10 classes, {len(read_weights(out)[0])} tensors → {out}\n")
    assert "its natural accuracy must match the published one" in said.out
    scores = []
    for backend in NAMES:
        load(backend)
        given = {
            "dataset": f"cifar10:{tmp_path / 'data'}",
            "attacks": "fgsm,apgd-ce",
            "subset": 8,
            "backend": backend,
        }
        said = stcli("evaluate", out, *words(given), "--no-audit")
        assert said.code == 0, said.err
        assert f"test split of cifar10:{tmp_path / 'data'}, subset 8, linf ε = 8/255, 95 %" in said.out
        (folder,) = (tmp_path / "evaluations").glob("*/w")
        scores.append(json.loads((folder / "result.json").read_text())["accuracies"])
        shutil.rmtree(folder.parent)
    assert scores[0] == scores[-1]
    assert list(scores[0]) == ["natural", "fgsm", "apgd-ce"]


# What is refused


class Code:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_file_that_wants_to_run_something_is_refused_and_not_run(tmp_path):
    state, trace = plain("resnet8").state_dict(), tmp_path / "trace"
    said = refusal(tmp_path, {"state_dict": state, "more": Code(trace)})
    assert "wants to run io.open, which was refused" in said
    assert not trace.exists()
    said = refusal(tmp_path, {"state_dict": state, "args": argparse.Namespace(lr=0.1)})
    assert "wants to run argparse.Namespace" in said
    assert "torch.save its state dict alone" in said


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\n<!DOCTYPE html><html>Quota exceeded</html>", "is a web page. Download it again"),
        (b"PK\x03\x04 cut off", "expected a whole PyTorch file"),
        (b"", "expected a whole PyTorch file"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path, raw, said):
    (tmp_path / "released.pt").write_bytes(raw)
    assert said in refusal_of(tmp_path / "released.pt")


def test_a_missing_file_is_refused(tmp_path):
    assert "does not exist" in refusal_of(tmp_path / "none.pt")


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {"scores": {"acc": torch.ones(2)}}, {}])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    assert "holds none" in refusal(tmp_path, content)


class Normalised(nn.Module):
    """As released wrappers have it: constants of three channels before a network that knows nothing of them."""

    def __init__(self, net):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4914, 0.4822, 0.4465]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2471, 0.2435, 0.2616]).view(1, 3, 1, 1))
        self.net = net

    def forward(self, x):
        return self.net((x - self.mean) / self.std)


def test_a_normalisation_by_channel_becomes_a_layer_of_the_network(tmp_path):
    net = Normalised(plain("resnet8")).eval()
    weights, about, said = imported(tmp_path, net.state_dict())
    assert about["normalize"].startswith("0.4914")
    assert f"--normalize {about['normalize']}" in said
    ours = build("resnet8", "torch", num_classes=CLASSES, normalize=about["normalize"]).eval()
    load_weights(ours, weights)
    x = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), net(x), rtol=1e-5, atol=1e-5)


def test_another_normalisation_is_refused(tmp_path):
    state = plain("resnet8").state_dict()
    three = torch.full((3,), 0.5)
    for found, named in (
        ({"mu": torch.tensor(0.5)}, "mu of shape ()"),
        ({"mean": three}, "mean of shape (3,)"),
        ({"mean": three[:2], "std": three[:2]}, "std of shape (2,)"),
        ({"mean": three, "std": three, "0.mu": three, "0.sigma": three}, "0.sigma of shape (3,)"),
    ):
        said = refusal(tmp_path, {**found, **state})
        assert named in said
        assert "stcore.evaluate" in said


def without(state, *names):
    return {name: tensor for name, tensor in state.items() if not name.startswith(names)}


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("preact-resnet18", lambda s: without(s, "bn."), "4 missing: bn.weight, bn.bias"),
        ("wrn-16-2", lambda s: without(s, "fc.bias"), "1 missing: fc.bias"),
        ("resnet8", lambda s: {**s, "conv1.weight": torch.ones(16, 3, 7, 7)}, "1 of another shape: conv1.weight"),
        ("resnet8", lambda s: {**s, "gate.weight": torch.ones(2)}, "1 unexpected: gate.weight"),
        (
            "resnet18",
            lambda s: {**prefixed(s, "module."), "gate.weight": torch.ones(2)},
            "1 unexpected: gate.weight",
        ),
        ("wrn-16-2", lambda s: {**prefixed(s, "module."), "scale": torch.ones(1)}, "1 unexpected: scale"),
        (
            "resnet8",
            lambda s: {**s, "bn1.running_var": torch.full((16,), np.nan)},
            "infinity in 1 tensors, such as bn1",
        ),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, name, change, problem):
    """In the file's own names, with the network that is nearest to it."""
    said = refusal(tmp_path, change(plain(name).state_dict()))
    assert f"the nearest is {name}" in said or "NaN" in said
    assert problem in said


def test_a_state_dict_of_ones_own_network_is_taken_as_it_is(tmp_path):
    """Counters, and whatever a wrapper put before the names: to start from and to evaluate."""
    import factories

    network = factories.torch_norms(10, 1)
    run = ("train", *words({**SETTINGS, **EAGER, "model": "factories:torch_norms", "learning_rate": 1e-12}))
    for wrap in (dict, lambda s: prefixed(s, "module._orig_mod.")):
        torch.save(wrap(network.state_dict()), tmp_path / "own.pth")
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        said = stcli(*run, "--init-weights", tmp_path / "own.pth", "--out", out)
        assert said.code == 0, said.err
        weights, _ = read_weights(out / "last.safetensors")
        np.testing.assert_allclose(weights["0.weight"], network[0].weight.detach().numpy(), atol=1e-6)

        ours = (
            "--dataset",
            "digits",
            "--attacks",
            "fgsm",
            "--epsilon",
            "0.1",
            "--no-audit",
            "--json",
            "--subset",
            40,
        )
        said = stcli("evaluate", tmp_path / "own.pth", *ours, "--model", "factories:torch_norms")
        assert said.code == 0, said.err
        assert json.loads(said.out)["own"]["natural"]["total"] == 40
        assert "give --model" in stcli("evaluate", tmp_path / "own.pth", *ours).err
    torch.save(plain("resnet8").state_dict(), tmp_path / "other.pth")
    assert "weights of this model" in stcli(*run, "--init-weights", tmp_path / "other.pth").err


def test_another_network_than_the_one_named_is_refused(tmp_path):
    state = plain("resnet8").state_dict()
    assert "expected the weights of wrn-16-2" in refusal(tmp_path, state, "--model", "wrn-16-2")
    assert "Did you mean 'resnet18'" in refusal(tmp_path, state, "--model", "resnet-18")


def test_networks_that_weights_cannot_tell_apart_are_to_be_named():
    weights = {name: np.zeros(shape) for name, shape in weight_shapes(describe("tiny", CLASSES)).items()}
    with pytest.raises(ValueError, match="one of tiny, tiny-smooth, which all fit"):
        released.recognise(weights)
    assert released.recognise(weights, "tiny-smooth").model == "tiny-smooth"


def test_nothing_is_overwritten_and_no_other_format_is_written(tmp_path):
    torch.save(plain("resnet8").state_dict(), tmp_path / "released.pt")
    (tmp_path / "there.safetensors").write_bytes(pickle.dumps("precious"))
    for out in ("there.safetensors", "ours.pt", "nowhere/ours.safetensors"):
        said = stcli("import", tmp_path / "released.pt", "--out", tmp_path / out)
        assert (said.code, said.err.count("expected a new .safetensors file")) == (2, 1)
    assert pickle.loads((tmp_path / "there.safetensors").read_bytes()) == "precious"
    assert "image_size: expected" in refusal_of(tmp_path / "released.pt", "--image-size", "0")


def test_the_command_has_help():
    said = stcli("import", "--help")
    assert (said.code, said.err) == (0, "")
    assert "usage: stcli import" in said.out


def test_one_of_several_state_dicts_in_a_list_is_read_by_its_number(tmp_path):
    """As provably trained networks are released: a list with a state dict for each network of a cascade."""
    torch = pytest.importorskip("torch")
    nets = [torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)]
    torch.save({"state_dict": [net.state_dict() for net in nets], "epoch": 1}, tmp_path / "list.pth")
    with pytest.raises(UsageError, match=r"'state_dict\.0', 'state_dict\.1'; received none"):
        torch_files.read(tmp_path / "list.pth")
    found = torch_files.read(tmp_path / "list.pth", "state_dict.1")
    np.testing.assert_array_equal(found["weight"], nets[1].weight.detach().numpy())
