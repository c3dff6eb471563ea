"""What a forward may write: nothing outside of TRAIN mode, whatever its modules do; draws are off in searches."""

import numpy as np
import pytest
from harness import assert_same, load, problem, worst

import stcore
from stcore import AWP, RWP, SqueezeConfig
from stcore.core.objective import training_step
from stcore.protocols import Mode

CONFIG = SqueezeConfig(epsilon=0.05, step_size=0.02, steps=2)
MODULES = ("norm of one's own", "subclass of batch norm", "spectral norm", "old spectral norm", "counter")


def torch_network(kind):
    """A network with a module that writes its buffers."""
    torch = pytest.importorskip("torch")
    from torch import nn
    from torch.nn import functional

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(4))
            self.register_buffer("running_var", torch.ones(4))

        def forward(self, x):
            return functional.batch_norm(x, self.running_mean, self.running_var, training=self.training)

    class Subclass(nn.BatchNorm2d):
        def forward(self, x):
            return functional.batch_norm(x, self.running_mean, self.running_var, training=self.training)

    class Counter(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen += len(x)
            return x

    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 3)
    between = {
        "norm of one's own": lambda: Own(),
        "subclass of batch norm": lambda: Subclass(4, affine=False),
        "counter": Counter,
        "standard": lambda: nn.BatchNorm2d(4, affine=False),
    }.get(kind, nn.Identity)()
    if kind == "spectral norm":
        layer = nn.utils.parametrizations.spectral_norm(layer)
    if kind == "old spectral norm":
        layer = nn.utils.spectral_norm(layer)
    return nn.Sequential(layer, between, nn.Softplus(), nn.Flatten(), nn.Linear(144, 3)).double()


def keras_network(kind):
    keras = pytest.importorskip("keras")

    keras.utils.set_random_seed(0)
    layers = [keras.Input((8, 8, 3), dtype="float64"), keras.layers.Conv2D(4, 3, dtype="float64")]
    if kind == "spectral norm":
        layers[1] = keras.layers.SpectralNormalization(layers[1], dtype="float64")
    if kind == "standard":
        layers.append(keras.layers.BatchNormalization(dtype="float64"))
    last = [keras.layers.Activation("softplus", dtype="float64"), keras.layers.Flatten(dtype="float64")]
    return keras.Sequential([*layers, *last, keras.layers.Dense(3, dtype="float64")])


NETWORKS = {("torch", kind): torch_network for kind in MODULES}
NETWORKS |= {("keras", kind): keras_network for kind in ("spectral norm", "standard")}


@pytest.fixture(params=NETWORKS, ids=" ".join)
def subject(request):
    name, kind = request.param
    return load(name), NETWORKS[request.param](kind)


def state(backend, model):
    if backend.name == "torch":
        return {name: backend.array(value) for name, value in model.state_dict().items()}
    return {variable.path: backend.array(variable) for variable in model.variables}


def test_a_search_and_an_evaluation_write_nothing(subject):
    backend, model = subject
    before, batch = state(backend, model), backend.batch(problem())
    stcore.find_squeeze_pair(model, batch.x, batch.y, CONFIG, noise=batch.noise)
    stcore.evaluate(model, (batch.x, batch.y), ["fgsm", "apgd-ce"])
    classifier = backend.classifier(model)
    for mode in (Mode.EVAL, Mode.BATCH):
        for dropout in (False, True):
            classifier.logits(batch.x, mode, dropout=dropout)
    assert_same(state(backend, model), before)


def test_batch_mode_is_training_mode_that_writes_nothing(subject):
    backend, model = subject
    classifier, batch = backend.classifier(model), backend.batch(problem())
    one, other = (backend.array(classifier.logits(batch.x, mode)) for mode in (Mode.BATCH, Mode.TRAIN))
    np.testing.assert_allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("kind", ["norm of one's own", "subclass of batch norm"])
def test_a_norm_of_ones_own_is_a_norm(kind):
    """The same pair, loss, weights and statistics as with PyTorch's."""
    backend, batches, results = load("torch"), load("torch").batch(problem()), []
    for each in ("standard", kind):
        model = torch_network(each)
        learner = backend.learner(model)
        for _ in range(2):
            result = training_step(
                learner, CONFIG, batches.x, batches.y, batches.noise, perturbation=AWP(gamma=0.05)
            )
        values = {name: v for name, v in state(backend, model).items() if "tracked" not in name}
        results.append((float(backend.array(result.loss)), values))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-12)
    for name, value in results[0][1].items():
        assert worst(results[1][1][name], value) < 1e-10, name


@pytest.mark.parametrize(
    ("compiled", "perturbation"),
    [
        (False, AWP(gamma=0.05)),
        (False, RWP(gamma=0.05, steps=2, threshold=9.0)),
        (True, AWP(gamma=0.05)),
        pytest.param(
            True, RWP(gamma=0.05, steps=2, threshold=9.0), marks=pytest.mark.slow
        ),  # five seconds to trace
    ],
    ids=["eager-awp", "eager-rwp", "traced-awp", "traced-rwp"],
)
def test_a_perturbation_is_removed_from_weights_that_a_forward_assigns(perturbation, compiled):
    """Keras' spectral norm assigns its kernel in every training forward; half of a perturbation stayed in it."""
    backend, model = load("keras"), keras_network("spectral norm")
    learner, batch = backend.learner(model, lr=0.0, weight_decay=0.0), backend.batch(problem())
    before = state(backend, model)
    step = lambda *given: training_step(learner, CONFIG, *given, perturbation=perturbation)  # noqa: E731
    for _ in range(2):
        (learner.compile(step) if compiled else step)(batch.x, batch.y, batch.noise)
    after = state(backend, model)
    kernels = [name for name in before if name.endswith("kernel")]
    assert len(kernels) == 2
    for name in kernels:
        assert worst(after[name], before[name]) < 1e-12, name


# What draws


def drawing(kind):
    keras = pytest.importorskip("keras")

    class Own(keras.layers.Layer):
        """A layer that draws, and calls neither its strength nor its generator as Keras does."""

        def __init__(self):
            super().__init__(dtype="float64")
            self.seeds = keras.random.SeedGenerator(0)

        def call(self, x, training=None):
            return x + keras.random.normal(keras.ops.shape(x), dtype=x.dtype, seed=self.seeds) if training else x

    layer = {
        "flip": lambda: keras.layers.RandomFlip(dtype="float64"),
        "translation": lambda: keras.layers.RandomTranslation(0.3, 0.3, dtype="float64"),
        "noise": lambda: keras.layers.GaussianNoise(0.5, dtype="float64"),
        "dropout": lambda: keras.layers.SpatialDropout2D(0.5, dtype="float64"),
        "one's own": Own,
    }[kind]()
    flat = [keras.layers.Flatten(dtype="float64"), keras.layers.Dense(3, dtype="float64")]
    return keras.Sequential([keras.Input((8, 8, 3), dtype="float64"), layer, *flat])


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        *((way, kind) for way in ("step", "loss") for kind in ("flip", "translation")),
        ("traced", "flip"),
        pytest.param("traced", "translation", marks=pytest.mark.slow),  # another trace of a step, five seconds
    ],
)
def test_images_are_augmented_alike_in_all_outer_forwards_and_anew_in_the_next_step(kind, way):
    """With next to no ball an image and its neighbours are the same: a divergence would be that of two flips."""
    backend, model = load("keras"), drawing(kind)
    config = SqueezeConfig(epsilon=1e-6, step_size=1e-7, steps=1)
    learner, batch = backend.learner(model, lr=0.0, weight_decay=0.0), backend.batch(problem())
    noise = tuple(1e-8 * one for one in batch.noise)
    losses = []
    for _ in range(4):
        if way == "loss":
            found = stcore.squeeze_loss(model, batch.x, batch.y, config=config, noise=noise)
            loss, divergence = found.total, found.divergence
        else:
            step = lambda *given: training_step(learner, config, *given)  # noqa: E731
            result = (learner.compile(step) if way == "traced" else step)(batch.x, batch.y, noise)
            loss, divergence = result.loss, result.metrics["divergence"]
        assert float(divergence) < 1e-9
        losses.append(float(loss))
    assert len(set(losses)) > 1  # each step draws for itself


@pytest.mark.parametrize("kind", ["flip", "translation", "noise", "dropout", "one's own"])
def test_what_draws_in_keras_is_off_in_a_search(kind):
    backend, model = load("keras"), drawing(kind)
    classifier, x = backend.classifier(model), backend.batch(problem()).x
    clean = backend.array(classifier.logits(x, Mode.EVAL))
    for mode in (Mode.BATCH, Mode.TRAIN):
        np.testing.assert_array_equal(backend.array(classifier.logits(x, mode)), clean)
        assert worst(backend.array(classifier.logits(x, mode, dropout=True)), clean) > 1e-3
    np.testing.assert_array_equal(backend.array(classifier.logits(x, Mode.EVAL)), clean)
