"""`stcli bracket` and `stcore.bracket`: no attack breaks a proof; stop and resume; smoothing's certificates."""

import json

import numpy as np
import pytest
from harness import built, load, problem
from small import stcli, trained

import stcore
from stcore.attacks import PGD
from stcore.audit.bracket import BROKEN, OPEN, PROVED, Bracketing, Certificates, Proofs, read_layers
from stcore.autoattack import AutoAttack
from stcore.base.progress import Silent
from stcore.bounds.smoothing import ABSTAINS, Smoothing
from stcore.core.dispatch import make_classifier
from stcore.errors import DataError, UsageError
from stcore.evaluation.attack_names import split
from stcore.evaluation.evaluator import Evaluator
from stcore.evaluation.folder import read_result

EPSILON = 0.03


def problem_of(backend, batch=24):
    """A tiny network whose classes differ from image to image, and images of which it misclassifies three."""
    model, images = built(backend, "tiny"), problem(batch).x
    classifier = make_classifier(model)
    weights = classifier.weights()
    weights["linear.weight"] *= 30
    weights["linear.bias"] *= 0
    classifier.load_weights(weights)
    weights["linear.bias"] -= classifier.eval_logits(classifier.images(images)).mean(axis=0)
    classifier.load_weights(weights)
    labels = classifier.eval_logits(classifier.images(images)).argmax(axis=1)
    labels[:3] = (labels[:3] + 1) % 3
    return model, images, labels


def native(model, images):
    classifier = make_classifier(model)
    return np.asarray(classifier.to_numpy(classifier.images(images)))


def test_lower_is_at_most_upper_and_no_attack_breaks_a_proof(backend):
    model, images, labels = problem_of(backend)
    attacks = {
        "pgd": PGD(EPSILON, EPSILON / 4, 10),
        "aa": AutoAttack(EPSILON, version="custom", attacks=("apgd-ce",)),
    }
    found = stcore.bracket(model, (native(model, images), labels), attacks, epsilon=EPSILON, check=True)
    assert found.proved + found.broken + found.undecided == found.total == 24
    assert 0 < found.lower.correct <= found.upper.correct <= found.natural.correct == 21
    records = found.records
    assert set(records["state"]) == {OPEN, PROVED, BROKEN} - ({OPEN} if not found.undecided else set())
    assert (records["state"][:3] == BROKEN).all()
    assert np.isnan(records["margin"][:3]).all()
    proved = records["state"] == PROVED
    assert (records["margin"][proved] > 0).all()
    for name in attacks:
        assert (records[f"predicted/{name}"][proved] == labels[proved]).all()
    assert str(found).startswith(f"at least {100 * found.proved / 24:.2f} %, at most ")
    alone = stcore.bracket(model, (native(model, images), labels), attacks, epsilon=EPSILON)
    np.testing.assert_array_equal(alone.records["state"], records["state"])
    assert (alone.records["predicted/pgd"][proved] == -1).all()


class Stores:
    """A store in memory, which asks to be saved at each step."""

    def __init__(self):
        self.state = None

    def load(self):
        return self.state

    def due(self):
        return True

    def save(self, state, examples):
        self.state = {name: np.array(array) for name, array in state.items()}


def test_a_stopped_bracket_resumes_to_the_same(backend):
    model, images, labels = problem_of(backend, 12)
    classifier = make_classifier(model)
    attack = AutoAttack(0.02, version="custom", attacks=("apgd-ce",))
    bound = Proofs(read_layers(classifier, images.shape[1:]), 0.02, "linf", "crown")

    evaluator = Evaluator(classifier, {"pgd": PGD(0.02, 0.005, 3)})

    def run(store, stop):
        return Bracketing(evaluator, split({"aa": attack}), bound, images, labels, batch_size=5).run(
            Silent(), store, stop
        )

    whole, store, stops, found = run(None, lambda: False), Stores(), 0, None
    while found is None:
        calls = iter(range(5))
        found = run(store, lambda calls=calls: next(calls, None) is None)  # five steps, then it is stopped
        stops += 1
    assert stops >= 3
    assert found.records.keys() == whole.records.keys()
    for name in whole.records.keys() - {"seconds"}:
        np.testing.assert_array_equal(found.records[name], whole.records[name], err_msg=name)


def test_a_proof_that_an_attack_refutes_is_an_error():
    """As where a proof is of other layers than those that run."""
    backend = load("torch")
    model, images, labels = problem_of(backend)

    class Wrong(Proofs):
        def bound(self, state, row, image, label, logits, **more):
            state["margin"][row] = 1.0

    classifier = make_classifier(model)
    bound = Wrong(read_layers(classifier, images.shape[1:]), 0.3, "linf")
    evaluator = Evaluator(classifier, {"pgd": PGD(0.3, 0.1, 10)})
    with pytest.raises(DataError, match=r"pgd fools \d+ images that are proved robust"):
        Bracketing(evaluator, split({}), bound, images, labels, check=True).run(Silent())


# Smoothing


def half_space(backend):
    """A linear classifier of flat pixels, whose smoothed classifier has the radius w·x / ‖w‖ in closed form."""
    w = np.array([3.0, 4.0, 0.0]) / 5
    if backend.name == "torch":
        import torch

        model = torch.nn.Linear(3, 2).double()
        with torch.no_grad():
            model.weight.copy_(torch.tensor(np.stack([-w, w])))
            model.bias.copy_(torch.tensor([0.5, -0.5], dtype=torch.float64))
        return model, w
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, dtype="float64")])
    model.layers[0].set_weights([np.stack([-w, w], axis=1), np.array([0.5, -0.5])])
    return model, w


def test_certified_radii_are_below_the_true_ones_and_near_them(backend):
    model, w = half_space(backend)
    images = np.random.default_rng(0).uniform(size=(8, 3))
    true = np.abs(images @ w - 0.5)
    smoothing = Smoothing(0.25, samples=2000, alpha=1e-3)
    data = images, (images @ w > 0.5).astype(int)
    found = stcore.bracket(model, data, epsilon=0.05, norm="l2", smoothing=smoothing)
    radius = found.records["radius"]
    assert (radius <= true).all()
    near = (true < 0.4) & (radius > 0)
    assert near.sum() > 3
    assert (true[near] - radius[near] < 0.08).all()
    np.testing.assert_array_equal(found.records["state"] == PROVED, radius >= 0.05 * (1 + 1e-6) + 1e-7)
    assert found.broken == 0
    assert found.attacked is None
    again = stcore.bracket(model, data, epsilon=0.05, norm="l2", smoothing=smoothing, batch_size=90)
    np.testing.assert_array_equal(again.records["radius"], radius)  # the batch size changes no noise


def test_radii_are_of_clopper_and_pearsons_limit():
    from scipy.stats import binomtest, norm

    smoothing = Smoothing(0.5, samples=1000, alpha=0.001)
    for agreeing in (0, 400, 500, 560, 900, 999, 1000):
        low = binomtest(agreeing, 1000, alternative="greater").proportion_ci(0.999, method="exact").low
        expected = 0.5 * norm.ppf(low) if low > 0.5 else 0.0
        assert smoothing.radius(agreeing) == pytest.approx(expected, abs=1e-9)
    assert (
        smoothing.largest_radius() == smoothing.radius(1000) == pytest.approx(0.5 * norm.ppf(0.001 ** (1 / 1000)))
    )


def test_a_smoothed_classifier_abstains_at_its_boundary():
    smoothing = Smoothing(0.1, selection=10, samples=200)
    calls = []

    def predict(images):
        calls.append(len(images))
        return (images[:, 0] > 0.5).astype(int)

    image = np.array([0.5, 0.0], np.float32)
    found = smoothing.certify(predict, image, seed=0, position=3, batch_size=64)
    assert found == (ABSTAINS, 0.0)
    assert sum(calls) == 210
    assert max(calls) == 64
    selected, radius = smoothing.certify(predict, image + np.float32(0.3), seed=0, position=3, batch_size=64)
    assert (selected, 0.1 < radius < 0.3) == (1, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": 0.0}, "a deviation above 0"),
        ({"sigma": 0.1, "alpha": 1.0}, r"a probability in \(0, 1\)"),
        ({"sigma": 0.1, "samples": 0}, "samples: expected a whole number of at least 1"),
        ({"sigma": 0.1, "selection": 0}, "selection: expected a whole number of at least 1"),
    ],
)
def test_settings_of_smoothing_out_of_range(settings, message):
    with pytest.raises(UsageError, match=message):
        Smoothing(**settings)


def test_a_radius_that_no_sample_size_reaches_is_refused():
    with pytest.raises(UsageError, match=r"samples: expected enough for a radius of 1; 100 certify 0\.1"):
        Certificates(Smoothing(0.1, samples=100), 1.0)
    with pytest.raises(UsageError, match=r"norm \(smoothing\): expected one of l2; received 'linf'"):
        Certificates(Smoothing(0.1), 0.1, "linf")


# The command


def test_the_command_resumes_and_prints_what_it_kept(backend, tmp_path):
    run = trained(backend.name).path
    words = ["bracket", run, "--epsilon", "0.001", "--attacks", "fgsm", "--out", tmp_path / "it"]
    said = stcli(*words)
    assert said.code == 0, said.err
    kept = read_result(tmp_path / "it")
    kept.pop("checksum", None)
    shown = f"({kept['proved']} proved, {kept['broken']} broken, {kept['undecided']} undecided of 32)"
    assert shown in said.out
    assert kept["proved"] + kept["broken"] + kept["undecided"] == kept["images"] == 32
    assert kept["accuracies"]["at least"]["correct"] == kept["proved"] <= kept["accuracies"]["at most"]["correct"]
    again = stcli(*words, "--json")
    assert json.loads(again.out) == {"best": kept}
    assert "finished before" in again.err
    other = stcli(*words[:-1], tmp_path / "it", "--method", "intervals")
    assert (other.code, "holds another evaluation: its bracket" in other.err) == (2, True)


def test_the_command_certifies_a_smoothed_classifier(tmp_path):
    load("torch")
    run = trained("torch").path
    words = ["bracket", run, "--subset", 4, "--epsilon", "0.05", "--norm", "l2", "--smoothing", "0.1"]
    said = stcli(*words, "--samples", 200, "--out", tmp_path / "it")
    assert said.code == 0, said.err
    assert "the classifier smoothed with σ = 0.1" in said.out
    assert "this certifies the smoothed classifier, not the network" in said.out
    records = np.load(tmp_path / "it" / "records.npz")
    assert records["radius"].shape == (4,)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "lp"], "method: expected one of intervals, crown, alpha-crown; received 'lp'"),
        (["--smoothing", "0"], "a deviation above 0"),
        (["--smoothing", "0.1"], "norm (smoothing): expected one of l2; received 'linf'"),
        (["--attacks", "quux"], "attacks: expected one of fgsm"),
        (["--subset", "0"], "subset: expected N or A:B"),
    ],
)
def test_bad_input_is_refused(words, message, tmp_path):
    load("torch")
    said = stcli("bracket", trained("torch").path, "--out", tmp_path / "it", *words)
    assert (said.code, said.err.count("\n")) == (2, 1), said.err
    assert message in said.err
