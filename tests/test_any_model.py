"""Other people's networks by name, normalisation within a model, and weights of other classes."""

import hashlib
import json
import random
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from forked import forked
from harness import assert_same, load, needs_timm, worst
from hypothesis import given
from hypothesis import strategies as st
from small import EAGER, plan, stcli, train

import stcore
from stcore.audit import CHECKS
from stcore.base.weights_file import load_weights as read_weights
from stcore.base.weights_file import save_weights
from stcore.errors import DataError, UsageError
from stcore.models import (
    build,
    export_weights,
    load_weights,
    normalization,
    pretrained_normalization,
    with_new_head,
)
from stcore.runs.plan_changes import over

DIGITS = {"num_classes": 10, "in_channels": 1, "image_size": (8, 8)}
FACTORIES = [
    ("torch", "factories:torch_transformer"),
    ("torch", "factories:torch_tied"),
    ("keras", "factories:keras_transformer"),
    ("keras", "factories:keras_separable"),
]
TRANSFORMERS = {"torch": "factories:torch_transformer", "keras": "factories:keras_transformer"}
every_factory = pytest.mark.parametrize(("framework", "name"), FACTORIES, ids=[name for _, name in FACTORIES])


def pixels(batch=4, side=8, channels=1, seed=0):
    return np.random.default_rng(seed).uniform(size=(batch, side, side, channels))


def logits(model, x):
    classifier = stcore.make_classifier(model)
    return classifier.eval_logits(classifier.images(x.astype(str(classifier.dtype).removeprefix("torch."))))


# --- Normalisation ---

numbers = st.floats(-3, 3, allow_nan=False)


@given(st.lists(st.tuples(numbers, st.floats(1e-3, 10)), min_size=1, max_size=5))
def test_what_is_written_is_read(pairs):
    mean, std = zip(*pairs, strict=True)
    layer = normalization.parse(normalization.text_of(mean, std), len(pairs))
    np.testing.assert_allclose((layer.mean, layer.std), (mean, std), rtol=1e-8, atol=1e-300)
    text = normalization.text_of(layer.mean, layer.std)
    assert normalization.canonical(text) == text


def test_published_values_are_those_of_methods():
    assert normalization.parse("cifar10", 3).std == (0.2471, 0.2435, 0.2616)
    assert normalization.canonical("svhn") == "0.5,0.5,0.5/0.5,0.5,0.5"
    assert normalization.parse("none") is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cifar", "cifar10"),
        ("0.5", "MEAN/STD"),
        ("0.5/0.5/0.5", "MEAN/STD"),
        ("0.5,0.4/0.5", "MEAN/STD"),
        ("a/b", "MEAN/STD"),
        ("/", "MEAN/STD"),
        ("0.5/0", "above 0"),
        ("0.5/-1", "above 0"),
        ("nan/1", "finite"),
        ("0/inf", "above 0"),
    ],
)
def test_what_is_no_normalisation_is_refused(text, says):
    with pytest.raises(UsageError, match=says):
        plan(normalize=text)


def test_every_channel_has_a_mean(backend):
    with pytest.raises(UsageError, match="expected 1 means"):
        build("tiny", backend.name, normalize="cifar10", **DIGITS)


@pytest.mark.parametrize("net", ["resnet8", "foreign"])
def test_a_normalised_network_is_the_network_of_normalised_pixels(backend, net):
    name = TRANSFORMERS[backend.name] if net == "foreign" else net
    options = {"num_classes": 4, "in_channels": 3, "image_size": (8, 8), "dtype": "float64", "seed": 3}
    plain = build(name, backend.name, **options)
    model = build(name, backend.name, normalize="cifar10", **options)
    assert_same(export_weights(model), export_weights(plain))
    x, (mean, std) = pixels(channels=3), ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
    normal = logits(plain, (x - mean) / std)
    assert worst(logits(model, x), normal) <= 1e-12
    classifier = stcore.make_classifier(model)
    for other in (classifier.copy(), classifier.folded(classifier.images(x))):
        assert worst(logits(other.model, x), normal) <= 1e-9
    if backend.name == "torch":
        assert len(list(model.parameters())) == len(list(plain.parameters()))
    else:
        assert len(model.weights) == len(plain.weights)
    assert len(classifier.state()) == len(stcore.make_classifier(plain).state())


def test_weights_of_one_framework_are_the_others_behind_a_normalisation():
    for name in ("torch", "keras"):
        load(name)
    models = [build("resnet8", b, num_classes=4, normalize="cifar10", dtype="float64") for b in ("torch", "keras")]
    x = pixels(side=32, channels=3)
    assert worst(*(logits(model, x) for model in models)) <= 1e-9


# --- Factories ---


@every_factory
def test_the_seed_decides_the_weights_of_a_factory(framework, name):
    load(framework)
    code = (
        "import sys, hashlib, stcore.models as m; "
        f"w = m.export_weights(m.build({name!r}, {framework!r}, seed=5, **{DIGITS!r})); "
        "print(hashlib.sha256(b''.join(n.encode() + w[n].tobytes() for n in sorted(w))).hexdigest())"
    )
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); {code}"
    said, _ = forked("-c", code, backend=framework)
    weights = export_weights(build(name, framework, seed=5, **DIGITS))  # after whatever was built in this process
    here = hashlib.sha256(b"".join(n.encode() + weights[n].tobytes() for n in sorted(weights))).hexdigest()
    assert here == said.strip()
    other = export_weights(build(name, framework, seed=6, **DIGITS))
    assert any(not np.array_equal(other[key], weights[key]) for key in weights)


def test_a_factory_may_draw_from_any_generator(global_random_state):
    load("torch")
    pythons = random.getstate()
    one, two, other = (export_weights(build("factories:numpys", "torch", seed=s, **DIGITS)) for s in (1, 1, 2))
    assert random.getstate() == pythons
    assert_same(one, two)
    assert not np.array_equal(one["1.bias"], other["1.bias"])


def test_keras_is_left_as_it_was():
    load("keras")
    import keras

    def state():
        return keras.config.floatx(), keras.config.dtype_policy().name, keras.backend.get_uid("probe")

    keras.utils.set_random_seed(3)
    draws, before = [], state()
    for _ in range(2):
        keras.utils.set_random_seed(3)
        if draws:
            build(TRANSFORMERS["keras"], "keras", dtype="float64", **DIGITS)
        draws.append(keras.initializers.RandomNormal()((4,)))
    np.testing.assert_array_equal(*draws)
    assert (*before[:2], before[2] + 1) == state()


@every_factory
@pytest.mark.parametrize("normalize", ["none", "0.5/0.25"])
def test_every_weight_goes_into_a_file_and_back(tmp_path, framework, name, normalize):
    load(framework)
    model, other = (build(name, framework, seed=s, normalize=normalize, **DIGITS) for s in (1, 2))
    weights = export_weights(model)
    whole = model.state_dict() if framework == "torch" else model.weights
    assert len(weights) == len(whole) - (name == "factories:torch_tied")  # num_batches_tracked alone is left out
    save_weights(tmp_path / "a.safetensors", weights, {})
    load_weights(other, read_weights(tmp_path / "a.safetensors")[0])
    assert_same(export_weights(other), weights)
    np.testing.assert_array_equal(logits(other, pixels()), logits(model, pixels()))


def test_the_dtype_is_a_factorys_too(backend):
    model = build(TRANSFORMERS[backend.name], backend.name, dtype="float64", **DIGITS)
    kinds = {str(array.dtype) for array in export_weights(model).values()}
    assert kinds == ({"float64", "int64"} if backend.name == "torch" else {"float64"})
    if backend.name == "torch":  # which draws in float32; of Keras' initialisers each dtype has numbers of its own
        single = build(TRANSFORMERS[backend.name], backend.name, **DIGITS)
        assert worst(logits(single, pixels()), logits(model, pixels())) <= 1e-5


@pytest.mark.parametrize(
    ("name", "framework", "says"),
    [
        ("factories:no_network", "torch", "to return a torch.nn.Module; received dict"),
        ("factories:no_network", "keras", "to return a keras.Model; received dict"),
        ("factories:torch_tied", "keras", "to return a keras.Model; received Sequential"),
        ("factories:unbuilt", "keras", "begin it with a keras.Input"),
        ("factories:fixed_dtype", "keras", "fixes float32"),
        ("factories:broken", "torch", r"broken\(num_classes=10\) raised KeyError"),
        ("factories:nothing", "torch", "factories has no nothing"),
        ("factories:NOT_CALLABLE", "torch", "received a int"),
        ("no_such_module:make", "torch", "no_such_module cannot be imported"),
        ("factories:", "torch", "package.module:factory"),
        ("a b:c", "torch", "package.module:factory"),
        ("timm:resnet18", "keras", "--backend torch"),
        ("keras.applications:MobileNetV2", "torch", "--backend keras"),
        ("keras.applications:MobileNetV4", "keras", "Did you mean 'MobileNetV"),
    ],
)
def test_what_is_no_factory_is_refused(name, framework, says):
    load(framework)
    if name == "factories:torch_tied":
        load("torch")
    dtype = "float64" if name == "factories:fixed_dtype" else "float32"
    with pytest.raises(UsageError, match=says):
        build(name, framework, dtype=dtype, **DIGITS)


# --- The command line ---


def trained_on(framework, tmp_path, **settings):
    """A run of the transformer, normalised."""
    load(framework)
    out = tmp_path / "run"
    options = {"model": TRANSFORMERS[framework], "normalize": "0.3/0.35", "steps": 2, "attacks": "fgsm"}
    said = train(out, backend=framework, **{**options, **settings})
    assert said.code == 0, said.err
    return out


@pytest.fixture(scope="module", params=["torch", pytest.param("keras", marks=pytest.mark.slow)])
def run(request, tmp_path_factory):
    """Keras traces a transformer for fifteen seconds; other factories of Keras train below."""
    return request.param, trained_on(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize(
    "audit",
    ["--no-audit", pytest.param("--audit", marks=pytest.mark.slow)],  # ten seconds of Keras' tracing
)
def test_a_factorys_network_trains_and_is_evaluated_audited_and_attacked(run, audit, tmp_path):
    framework, folder = run
    before = json.loads((folder / "result.json").read_text())["checkpoints"]["last"]
    said = stcli("evaluate", folder, "--attacks", "fgsm,apgd-ce", "--checkpoint", "last", audit, "--out", tmp_path)
    assert said.code == 0, said.err
    found = json.loads((tmp_path / "last" / "result.json").read_text())
    assert found["accuracies"]["fgsm"] == before["fgsm"]
    assert len(found["audit"] or ()) == (0 if audit == "--no-audit" else len(CHECKS))
    about = read_weights(folder / "last.safetensors")[1]
    assert (about["model"], about["normalize"]) == (TRANSFORMERS[framework], "0.3/0.35")


def test_a_weights_file_alone_has_no_code_run(run):
    framework, folder = run
    evaluate = ("evaluate", folder / "last.safetensors", "--dataset", "digits", "--attacks", "fgsm", "--no-audit")
    said = stcli(*evaluate)
    assert said.code == 2
    assert "Give --model" in said.err
    assert stcli(*evaluate, "--model", TRANSFORMERS[framework]).code == 0
    assert "leave it out" in stcli("evaluate", folder, "--model", TRANSFORMERS[framework]).err


def test_another_framework_or_normalisation_is_refused(run, tmp_path):
    framework, folder = run
    other = "keras" if framework == "torch" else "torch"
    load(other)
    said = stcli("evaluate", folder, "--backend", other)
    assert said.code == 2
    weights, about = read_weights(folder / "last.safetensors")
    save_weights(tmp_path / "other.safetensors", weights, {**about, "normalize": "0.1/0.35"})
    said = stcli("evaluate", folder, "--weights", tmp_path / "other.safetensors")
    assert said.code == 2
    assert "with normalize 0.3/0.35; received 0.1/0.35" in said.err
    save_weights(tmp_path / "foreign.safetensors", weights, {**about, "backend": other})
    said = stcli("evaluate", folder, "--weights", tmp_path / "foreign.safetensors")
    assert f"Give --backend {other}" in said.err


def test_a_factorys_network_labels_images(run, tmp_path):
    _, folder = run
    images = (pixels(6) * 255).astype("uint8")
    np.savez(tmp_path / "more.npz", images=images)
    said = stcli(
        "pseudo-label",
        folder,
        "--data",
        f"npz:{tmp_path / 'more.npz'}",
        "--out",
        tmp_path / "l.npz",
        "--checkpoint",
        "last",
    )
    assert said.code == 0, said.err
    options = {**DIGITS, "normalize": "0.3/0.35"}
    model = build(TRANSFORMERS[run[0]], run[0], **options)
    load_weights(model, read_weights(folder / "last.safetensors")[0])
    np.testing.assert_array_equal(np.load(tmp_path / "l.npz")["labels"], logits(model, images / 255).argmax(1))


def test_a_factorys_network_is_an_entry_for_robustbench(tmp_path, monkeypatch):
    load("torch")
    from test_export import evaluate, export

    name, size = TRANSFORMERS["torch"], {"num_classes": 10, "in_channels": 3, "image_size": (32, 32)}
    trained = build(name, "torch", seed=3, normalize="cifar10", **size)
    about = {"stcore": "0.1.0", "model": name, "num_classes": 10, "image_shape": "32x32x3", "normalize": "cifar10"}
    said = {}
    for framework in ("torch", "keras"):
        path = tmp_path / framework / "best.safetensors"
        path.parent.mkdir()
        save_weights(path, export_weights(trained), {**about, "backend": framework})
        said[framework], _ = export(path, evaluate(path), name="Li2023Squeeze_Transformer")
    assert said["torch"].code == 0, said["torch"].err
    assert "a network in PyTorch" in said["keras"].err

    out = tmp_path / "torch" / "entry"
    info = json.loads(next((out / "model_info").rglob("*.json")).read_text())
    assert info["architecture"] == "torch_transformer"
    monkeypatch.chdir(out)
    scope = {}
    exec(re.search(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)[1], scope)
    x = pixels(side=32, channels=3)
    np.testing.assert_array_equal(logits(scope["model"], x), logits(trained, x))


# --- Starting weights ---


def test_a_new_head_is_taken_when_asked_for(backend, tmp_path):
    name = TRANSFORMERS[backend.name]
    before = export_weights(build(name, backend.name, seed=1, **{**DIGITS, "num_classes": 4}))
    own = export_weights(build(name, backend.name, seed=2, **DIGITS))
    weights, head = with_new_head(before, own, 10)
    assert len(head) == 2
    assert_same(weights, {**before, **{name: own[name] for name in head}})
    with pytest.raises(UsageError, match="Leave --new-head out"):
        with_new_head(own, own, 10)

    save_weights(tmp_path / "four.safetensors", before, {"model": name, "backend": backend.name})
    settings = {"backend": backend.name, "model": name, "init_weights": tmp_path / "four.safetensors"}
    said = train(tmp_path / "refused", **settings)
    assert said.code == 2
    assert "of another shape" in said.err
    settings |= {"learning_rate": 0, "seed": 2, **EAGER}
    said = train(tmp_path / "run", "--new-head", **settings)
    assert said.code == 0
    assert f"new head: {', '.join(sorted(head))} start afresh" in said.out
    assert_same(read_weights(tmp_path / "run" / "last.safetensors")[0], weights)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"pretrained": True}, "timm:NAME or keras.applications:NAME"),
        ({"pretrained": True, "model": "factories:torch_tied"}, "timm:NAME"),
        ({"new_head": True}, "init_weights"),
        ({"pretrained": True, "model": "timm:resnet18", "normalize": "none", "init_weights": "a"}, "at most one"),
    ],
)
def test_starting_weights_that_contradict_are_refused(settings, says):
    with pytest.raises(UsageError, match=says):
        plan(**settings)


def test_another_network_has_no_use_for_what_the_weights_wanted():
    before = {"model": "timm:vit", "pretrained": True, "normalize": "0.5/0.25", "seed": 3}
    assert over(before, {"model": "tiny"}) == {"model": "tiny", "seed": 3}
    assert over(before, {"seed": 4}) == {**before, "seed": 4}
    own = {"model": "resnet18", "normalize": "cifar10"}
    assert over(own, {"model": "tiny"}) == {"model": "tiny", "normalize": "cifar10"}


# --- keras.applications ---


@pytest.fixture(scope="module")
def keras():
    load("keras")
    import keras

    return keras


def test_a_network_of_keras_applications_trains(keras):
    model = build("keras.applications:MobileNetV2", "keras", num_classes=4, in_channels=3, seed=1)
    x = pixels(4, side=32, channels=3)
    again = build("keras.applications:MobileNetV2", "keras", num_classes=4, in_channels=3, seed=1)
    assert_same(export_weights(again), export_weights(model))
    learner = stcore.make_learner(model, keras.optimizers.SGD(0.01))
    before = learner.weights()
    x, y = learner.images(x.astype("float32")), learner.labels(np.arange(4))
    stcore.train_step(learner, stcore.StandardConfig(), x, y)
    assert learner.eval_logits(x).shape == (4, 4)
    moved = [name for name, array in learner.weights().items() if not np.array_equal(array, before[name])]
    assert "logits.weight" in moved
    assert "Conv1.weight" in moved


def test_images_too_small_for_a_network_say_so(keras):
    with pytest.raises(UsageError, match="at least 32x32"):
        build("keras.applications:VGG16", "keras", **DIGITS)


@pytest.mark.parametrize("name", ["ResNet50", "MobileNetV2", "MobileNetV3Small"])  # BGR; to [-1, 1]; by itself
def test_pretrained_weights_see_what_they_were_trained_on(keras, monkeypatch, name):
    """Keras' own preprocess_input before the bare network is the oracle; fresh weights stand for the published."""
    application = getattr(keras.applications, name)
    preprocess = sys.modules[application.__module__].preprocess_input
    bodies = []

    def published(*args, weights, **options):
        assert weights == "imagenet"
        body = application(*args, weights=None, **options)
        bodies.append([np.asarray(v) for v in body.weights])
        return body

    published.__module__ = application.__module__
    full = f"keras.applications:{name}"
    text = pretrained_normalization(full)
    assert plan(backend="keras", model=full, pretrained=True).model.normalize == text
    assert plan(backend="keras", model=full, pretrained=True, normalize="imagenet").model.normalize == "imagenet"
    with monkeypatch.context() as patched:
        patched.setattr(keras.applications, name, published)
        model = build(full, "keras", num_classes=4, in_channels=3, normalize=text, pretrained=True)
    bare = application(include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg")
    bare.set_weights(bodies[0])
    x = pixels(2, side=32, channels=3).astype("float32")
    features = bare(preprocess(255 * x.copy()), training=False)
    ours = keras.Model(model.inputs, model.get_layer("logits").input)([x], training=False)
    assert worst(ours, features) <= 1e-4
    if text == "none":
        with pytest.raises(UsageError, match="normalises pixels by itself"):
            build(full, "keras", num_classes=4, in_channels=3, normalize="imagenet")

    # Rebuilt from its own weights file it is the same network, without a download.
    rebuilt = build(full, "keras", num_classes=4, in_channels=3, normalize=text)
    load_weights(rebuilt, export_weights(model))
    np.testing.assert_array_equal(logits(rebuilt, x), logits(model, x))


# --- timm ---


@pytest.fixture
def timm(monkeypatch):
    """A module that has what we use of timm, under timm's names and signatures; it keeps what it was asked."""
    load("torch")
    import torch

    stub = types.ModuleType("timm")
    sizes = {"resnet": False, "vit": True}
    stub.__version__, stub.asked = "1.0", []

    def create_model(model_name, pretrained=False, **kwargs):
        stub.asked.append({"name": model_name, "pretrained": pretrained, **kwargs})
        if kwargs.get("img_size", (8, 8)) == (9, 9) or pretrained:
            raise RuntimeError("no such thing")
        return torch.nn.Sequential(
            torch.nn.Conv2d(kwargs["in_chans"], 4, 3),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(4, kwargs["num_classes"]),
        )

    def get_pretrained_cfg(model_name):
        return types.SimpleNamespace(fixed_input_size=sizes[model_name], mean=(0.5,), std=(0.25,))

    stub.create_model, stub.get_pretrained_cfg = create_model, get_pretrained_cfg
    stub.is_model, stub.list_models = sizes.__contains__, lambda: list(sizes)
    monkeypatch.setitem(sys.modules, "timm", stub)
    return stub


def test_timm_is_asked_for_what_the_data_need(timm):
    for name in ("resnet", "vit"):
        build(f"timm:{name}", "torch", **DIGITS)
    counts = {"pretrained": False, "num_classes": 10, "in_chans": 1}
    assert timm.asked == [{"name": "resnet", **counts}, {"name": "vit", **counts, "img_size": (8, 8)}]


def test_a_network_of_timm_is_a_run(timm, tmp_path):
    out = tmp_path / "run"
    said = train(out, model="timm:resnet", steps=1, attacks="fgsm", normalize="0.3/0.35")
    assert said.code == 0, said.err
    said = stcli("evaluate", out / "last.safetensors", "--dataset", "digits", "--attacks", "fgsm", "--no-audit")
    assert said.code == 0, said.err


def test_what_timm_lacks_is_said(timm, monkeypatch):
    with pytest.raises(UsageError, match="Did you mean 'resnet"):
        build("timm:resnets", "torch", **DIGITS)
    with pytest.raises(UsageError, match="cannot be built for 9×9 pixels"):
        build("timm:vit", "torch", **{**DIGITS, "image_size": (9, 9)})
    with pytest.raises(DataError, match="cannot be had"):
        build("timm:vit", "torch", pretrained=True, **DIGITS)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"timm cannot be imported.*'\.\[timm\]'"):
        build("timm:resnet", "torch", **DIGITS)


def test_pretrained_weights_bring_their_normalisation(timm):
    assert plan(model="timm:vit", pretrained=True).model.normalize == "0.5/0.25"
    assert plan(model="timm:vit", pretrained=True, normalize="none").model.normalize == "none"


def test_timm_itself():
    """Beside PyPI's torchvision too, which cannot be imported beside torch's CPU build."""
    load("torch")
    needs_timm()
    for name in ("test_resnet", "test_vit"):
        options = {"num_classes": 4, "in_channels": 1, "image_size": (32, 32), "normalize": "0.5/0.25"}
        model, again = (build(f"timm:{name}", "torch", seed=3, **options) for _ in range(2))
        assert_same(export_weights(model), export_weights(again))
        assert logits(model, pixels(2, side=32)).shape == (2, 4)
        import timm  # which may have needed our help

        config = timm.get_pretrained_cfg(name)
        assert pretrained_normalization(f"timm:{name}") == normalization.text_of(config.mean, config.std)


def test_a_torch_network_of_other_pixels_searches_in_their_units():
    """As its plain twin: bounds, ε, α and noise 256 times as large."""
    load("torch")
    import torch

    class Scaled(torch.nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, x):
            return self.net(x / 256)

    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).double()
    x, y = torch.rand(8, 1, 4, 4, dtype=torch.float64), torch.arange(8) % 3
    small = {"epsilon": 0.2, "step_size": 0.1, "noise_std": 0.01}
    large = {name: 256 * value for name, value in small.items()} | {"bounds": (0, 256)}
    one = stcore.find_squeeze_pair(Scaled(plain), 256 * x, y, stcore.SqueezeConfig(steps=3, **large), rng=0)
    other = stcore.find_squeeze_pair(plain, x, y, stcore.SqueezeConfig(steps=3, **small), rng=0)
    for scaled, expected in zip(one, other, strict=True):
        np.testing.assert_allclose(scaled.numpy() / 256, expected.numpy(), atol=1e-12)
