"""Every method, wrapper and preset through the command line, on both backends, with a tiny network."""

import json

import numpy as np
import pytest
from harness import NAMES, assert_same, load
from published import write_all
from small import EAGER, SETTINGS, Run, stcli, train, trained

from stcore.analysis import losses, ratio
from stcore.base.weights_file import load_weights
from stcore.cli.training_plan import plan_from
from stcore.data import load_digits, load_extra, save_arrays
from stcore.errors import UsageError
from stcore.evaluation.pseudo_labels import keep, label
from stcore.methods import METHODS
from stcore.paper import PRESETS
from stcore.results.comparison import compare
from stcore.runs.known_presets import find
from stcore.runs.plan import make_plan
from stcore.runs.plan_changes import over
from stcore.runs.record import read_record

ON_EACH = pytest.mark.parametrize("backend", NAMES)
METRICS = {
    "st": {"natural_loss", "adversarial_loss", "collaborative_loss", "divergence", "selected_intended"},
    "standard": {"natural_loss"},
    "at": {"adversarial_loss"},
    "gairat": {"adversarial_loss", "kappa"},
    "collaborative": {"natural_loss", "collaborative_loss", "divergence"},
    "e-at": {"adversarial_loss"},
    "n-fgsm": {"adversarial_loss"},
    "fgsm-rs": {"adversarial_loss"},
    "fgsm-consistency": {"adversarial_loss", "divergence"},
    "gair-rst": {"natural_loss", "adversarial_loss", "divergence", "collaborative_share", "kappa"},
}
METRICS["fast-st"] = METRICS["st"]
SINGLE_STEP = ("fast-st", "n-fgsm", "fgsm-rs", "fgsm-consistency")
PERTURBED = {"awp": {"awp": 0.01}, "rwp": {"rwp": 0.01, "rwp_steps": 2, "rwp_threshold": 10}}
TRADES_LIKE = {"natural_loss", "adversarial_loss", "divergence", "collaborative_share"}


# Methods


@pytest.mark.parametrize(
    ("method", "backend"), [*((name, "torch") for name in METHODS), ("gairat", "keras"), ("fast-st", "keras")]
)
def test_a_method_trains(tmp_path, method, backend):
    """With Keras the methods that a row of the paper has are below, among its presets."""
    load(backend)
    said = train(tmp_path / "run", backend=backend, method=method, epochs=2)
    assert said.code == 0, said.err
    run = Run(tmp_path / "run", said)
    rows = run.metrics
    assert len(rows) == 2
    assert_metrics_of(method, rows)
    assert method not in ratio.LOGGED_BY or all("collaborative_share" in row for row in rows)
    losses.compute({method: run.path}, losses.Settings())
    config = make_plan(json.loads(json.dumps(config_of(run))))
    assert config.method.name == method
    assert set(run.json("result.json")["checkpoints"]) == {"best", "last"}
    assert f"{method} on digits, tiny, {backend}" in said.out


def assert_metrics_of(method, rows):
    assert set(rows[0]) >= METRICS.get(method, METRICS["at"] if method == "at2" else TRADES_LIKE)
    assert all(np.isfinite(value) for row in rows for value in row.values())


def config_of(run):
    import tomllib

    return tomllib.loads((run.path / "config.toml").read_text())


def test_the_late_phase_of_gairat_is_half_way():
    assert (
        make_plan({"method": "gairat", "epochs": 120, "dataset": "cifar10:x"}).method.settings["begin_epoch"] == 60
    )
    assert make_plan({"method": "gair-rst", "epochs": 200}).method.settings["begin_epoch"] == 100
    assert make_plan({"method": "gairat", "epochs": 3}).method.settings["begin_epoch"] == 2
    assert make_plan({"method": "gairat", "begin_epoch": 5}).method.settings["begin_epoch"] == 5


def test_a_methods_beta_is_its_own_on_every_data_set():
    betas = {
        (method, data): make_plan({"method": method, "dataset": f"{data}:x"}).method.settings["beta"]
        for method in ("st", "trades", "mart")
        for data in ("cifar10", "cifar100", "svhn")
    }
    assert [betas["st", data] for data in ("cifar10", "cifar100", "svhn")] == [6.0, 4.0, 8.0]
    assert {betas["trades", data] for data in ("cifar10", "cifar100", "svhn")} == {6.0}
    assert {betas["mart", data] for data in ("cifar10", "cifar100", "svhn")} == {5.0}
    assert make_plan({"method": "trades", "dataset": "svhn:x"}).method.settings["step_size"] == pytest.approx(
        1 / 255
    )


# Wrappers


@ON_EACH
@pytest.mark.parametrize("wrapper", PERTURBED.values(), ids=PERTURBED)
def test_a_weight_perturbation_changes_training_from_its_first_epoch_on(tmp_path, backend, wrapper):
    load(backend)
    small = {
        "model": f"factories:{backend}_few_weights",
        "batch_size": 64,
        "method": "trades",
        "epochs": 2,
        **EAGER,
    }
    runs = {}
    for name, settings in {
        "without": {},
        "late": {**wrapper, "perturbation_warmup": 2},
        "whole": {**wrapper},
    }.items():
        said = train(tmp_path / name, backend=backend, **small, **settings)
        assert said.code == 0, said.err
        runs[name] = Run(tmp_path / name, said).metrics
    losses = {name: [row["loss"] for row in rows] for name, rows in runs.items()}
    assert losses["late"][0] == losses["without"][0] != losses["whole"][0]
    assert losses["late"][1] != losses["without"][1]


@ON_EACH
def test_averaged_weights_are_evaluated_and_kept_beside_the_raw_ones(tmp_path, backend):
    load(backend)
    plain, said = trained(backend), train(tmp_path / "run", backend=backend, epochs=2, ema=0.5, attacks="fgsm")
    assert said.code == 0, said.err
    run = Run(tmp_path / "run", said)
    assert_same(run.weights(), plain.weights())  # averaging changes nothing of the training
    result = run.json("result.json")
    assert (
        set(result["checkpoints"]) == set(result["checkpoint_epochs"]) == {"best", "last", "best-ema", "last-ema"}
    )
    averaged = run.weights("last-ema.safetensors")
    assert all(np.any(averaged[name] != run.weights()[name]) for name in averaged)
    assert {"ema_natural_accuracy", "ema_pgd20_accuracy", "ema_best_epoch"} <= set(run.metrics[0])
    assert "best-ema" in said.out
    again = stcli("evaluate", run.path, "--json", "--attacks", "fgsm", "--checkpoint", "last-ema")
    scores = json.loads(again.out)
    assert scores["last-ema (epoch 2)"] == result["checkpoints"]["last-ema"]


def test_an_average_of_decay_zero_is_the_last_step(tmp_path):
    load("torch")
    said = train(tmp_path / "run", ema=0.0)
    assert said.code == 0, said.err
    run = Run(tmp_path / "run", said)
    averaged, raw = run.weights("last-ema.safetensors"), run.weights()
    for name in raw:
        np.testing.assert_allclose(averaged[name], raw[name], rtol=1e-5, atol=1e-7)


# Extra data and pseudo-labels


@pytest.fixture(scope="module")
def more_digits(tmp_path_factory):
    """The digits' test images, as if somebody had labelled them."""
    path, digits = tmp_path_factory.mktemp("extra") / "more.npz", load_digits().test
    save_arrays(path, digits.images, digits.labels, num_classes=10)
    return path


@ON_EACH
def test_extra_data_is_mixed_into_every_batch(tmp_path, backend, more_digits):
    """64 images in batches of 40: two full batches, half of each extra."""
    load(backend)
    settings = {"backend": backend, "method": "trades", **EAGER}
    flags = ("--adversarial-first", "--share-natural", "--nesterov")
    said = train(tmp_path / "run", *flags, **settings, extra_data=f"npz:{more_digits}")
    assert said.code == 0, said.err
    run = Run(tmp_path / "run", said)
    row = run.metrics[0]
    assert row["images_per_second"] * row["seconds"] == pytest.approx(80, rel=0.05)
    assert config_of(run)["extra_fraction"] == 0.5
    assert run.json("environment.json")["data"]["extra"]["images"] == 347
    without = train(tmp_path / "without", *flags, **settings)
    assert without.code == 0, without.err
    other = Run(tmp_path / "without", without)
    assert other.metrics[0]["loss"] != pytest.approx(row["loss"], rel=1e-3)


def test_a_share_of_extra_data(tmp_path, more_digits):
    load("torch")
    said = train(tmp_path / "run", method="at", extra_data=f"npz:{more_digits}", extra_fraction=0.7)
    assert said.code == 0, said.err


def test_extra_data_of_another_shape_is_refused(tmp_path):
    save_arrays(tmp_path / "other.npz", np.zeros((4, 9, 9, 1), np.uint8), np.arange(4), num_classes=10)
    said = train(tmp_path / "run", extra_data=f"npz:{tmp_path / 'other.npz'}")
    assert said.code == 2
    assert "expected images of shape (8, 8, 1)" in said.err
    assert not (tmp_path / "run").exists()


@ON_EACH
def test_pseudo_labels_are_what_the_network_predicts(tmp_path, backend, more_digits):
    run, out = trained(backend), tmp_path / "labelled.npz"
    said = stcli("pseudo-label", run.path, "--data", f"npz:{more_digits}", "--out", out, "--checkpoint", "last")
    assert said.code == 0, said.err
    extra = load_extra(f"npz:{out}")
    assert "347 of 347 images" in said.out
    predictions = tmp_path / "predictions.json"
    words = ("--checkpoint", "last", "--attacks", "fgsm", "--subset", "347", "--predictions", predictions)
    again = stcli("evaluate", run.path, *words)
    assert again.code == 0, again.err
    expected = json.loads(predictions.read_text())["last (epoch 2)"]["natural"]
    np.testing.assert_array_equal(extra.labels, expected)
    assert train(tmp_path / "next", backend=backend, extra_data=f"npz:{out}", **EAGER).code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "npz:nowhere.npz"}, "nowhere.npz"),
        ({"out": "x.txt"}, "out: expected a new .npz file"),
        ({"out": "nowhere/x.npz"}, "out: expected a new .npz file in an existing folder"),
        (
            {"checkpoint": "middle"},
            "checkpoint: expected one of best, last, best-ema, last-ema",
        ),
        ({"checkpoint": "best-ema"}, "best-ema.safetensors does not exist"),
        ({"min_confidence": 2}, "min_confidence: expected a number in [0, 1]; received 2.0"),
        ({"per_class": 0}, "per_class: expected a whole number of at least 1; received 0"),
        ({"batch_size": 0}, "batch_size: expected a whole number of at least 1; received 0"),
    ],
)
def test_pseudo_labelling_refuses_what_does_not_fit(tmp_path, monkeypatch, more_digits, change, message):
    run = trained("torch").path
    monkeypatch.chdir(tmp_path)
    settings = {"data": f"npz:{more_digits}", "out": "labelled.npz", **change}
    words = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]
    said = stcli("pseudo-label", run, *words)
    assert said.code in (2, 3)
    assert message in said.err
    assert not list(tmp_path.glob("*.npz"))


def test_images_of_another_shape_are_not_labelled(tmp_path):
    save_arrays(tmp_path / "other.npz", np.zeros((4, 9, 9, 1), np.uint8), np.arange(4))
    data, out = f"npz:{tmp_path / 'other.npz'}", tmp_path / "out.npz"
    said = stcli("pseudo-label", trained("torch").path, "--data", data, "--out", out)
    assert (said.code, out.exists()) == (2, False)
    assert "expected images of 8x8x1, as the run's; received 9x9x1" in said.err


def test_the_most_confident_of_each_class_are_kept():
    labels, confidence = np.array([0, 1, 0, 1, 0]), np.array([0.9, 0.4, 0.95, 0.6, 0.5])
    np.testing.assert_array_equal(keep(labels, confidence), np.arange(5))
    np.testing.assert_array_equal(keep(labels, confidence, per_class=1), [2, 3])
    np.testing.assert_array_equal(keep(labels, confidence, least=0.55), [0, 2, 3])
    np.testing.assert_array_equal(keep(labels, confidence, least=0.92), [2])


def test_the_confidence_is_the_likeliest_classs_probability(backend):
    classifier, images = backend.classifier(backend.build("tiny")), (np.arange(5 * 192) % 251).astype(np.uint8)
    images = images.reshape(5, 8, 8, 3)
    labels, confidence = label(classifier, images, batch_size=2)
    from stcore.protocols import Mode

    logits = backend.array(classifier.logits(classifier.images(images), Mode.EVAL))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_array_equal(labels, p.argmax(1))
    np.testing.assert_allclose(confidence, p.max(1), rtol=1e-6)


# Presets: every row of the paper, on small sets in their real formats, with a tiny network


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    place = tmp_path_factory.mktemp("published")
    write_all(place)
    return place


BRIEF = {
    "model": "tiny",
    "epochs": 1,
    "train_size": 20,
    "batch_size": 10,
    "attacks": "fgsm",
    "eval_batch_size": 100,
}


def two_steps(published, monkeypatch, name, backend, **settings):
    """`stcli train --preset NAME` for an epoch of two batches, its weight perturbation in force."""
    monkeypatch.chdir(published)
    brief = (
        BRIEF | settings | ({"perturbation_warmup": 1} if "perturbation_warmup" in PRESETS[name].settings else {})
    )
    brief |= {"test_size": 20} if "test_size" in PRESETS[name].settings else {}
    words = [word for key, value in brief.items() for word in (f"--{key.replace('_', '-')}", value)]
    out = f"runs/{backend}/{name}"
    return stcli("train", "--preset", name, "--backend", backend, "--out", out, *words), published / out


SHAPING = ("method", "divergence", "init", "adversarial_first", "share_natural")
"""What a step's graph depends on by its value; by whether it is there at all: `PRESENT`."""
PRESENT = ("awp", "rwp", "extra_data")


def shape(name):
    row = PRESETS[name].settings
    return frozenset({*((key, row.get(key)) for key in SHAPING), *((key, key in row) for key in PRESENT)})


def kinds():
    """Few presets that have every value of what shapes a step's graph."""
    left = {name: shape(name) for name in PRESETS}
    seen, chosen = set(), []
    while any(each - seen for each in left.values()):
        chosen.append(max(left, key=lambda name: len(left[name] - seen)))
        seen |= left[chosen[-1]]
    return chosen


FIRST = {*kinds(), *{shape(name): name for name in reversed(PRESETS)}.values()}
"""A preset of each shape."""


@pytest.mark.parametrize(
    "name",  # the others differ from these in numbers alone: half a minute together
    [name if name in FIRST else pytest.param(name, marks=pytest.mark.slow) for name in PRESETS],
)
def test_a_preset_trains_on_the_published_formats(published, monkeypatch, name):
    load("torch")
    said, out = two_steps(published, monkeypatch, name, "torch")
    assert said.code == 0, said.err
    run = Run(out, said)
    assert np.isfinite(run.metrics[0]["loss"])
    preset, verdict = find(name), compare(find(name), [read_record(out)])
    assert not verdict.comparable
    assert any(reason.startswith("epochs: the row has") for reason in verdict.reasons)
    if preset.settings["select"] == "test":
        assert "TEST, the paper's optimistic rule" in said.out
    config = config_of(run)
    kept = set(preset.settings) - set(BRIEF) - {"begin_epoch", "perturbation_warmup", "test_size"}
    for setting in kept:
        value = preset.settings[setting]
        assert config[setting] == (list(value) if isinstance(value, tuple) else value), setting


@pytest.mark.parametrize(
    "name",  # the first of them have most; the others are fifteen seconds of tracing
    [name if at < 4 else pytest.param(name, marks=pytest.mark.slow) for at, name in enumerate(kinds())],
)
def test_a_kind_of_preset_trains_with_keras(published, monkeypatch, name):
    load("keras")
    shorter = {"rwp_steps": 2} if "rwp" in PRESETS[name].settings else {}  # each is in the graph
    said, out = two_steps(published, monkeypatch, name, "keras", **shorter)
    assert said.code == 0, said.err
    method, run = PRESETS[name].settings["method"], Run(out, said)
    assert_metrics_of(method, run.metrics)
    assert set(run.json("result.json")["checkpoints"]) == {"best", "last"}
    assert said.out.startswith(f"{method} ")
    assert "tiny, keras" in said.out.splitlines()[0]


def test_a_kind_of_preset_has_each_method_of_the_paper():
    assert {PRESETS[name].settings["method"] for name in kinds()} == set(METHODS) - {
        "gairat",
        "e-at",
        *SINGLE_STEP,
    }


def test_options_over_a_preset():
    row = PRESETS["table1/cifar10/trades-awp"].settings
    assert over(row, {"epsilon": 4 / 255}).keys() & {"step_size", "eval_epsilon"} == set()
    plan = make_plan({"preset": "table1/cifar10/trades-awp", "epsilon": 4 / 255, "epochs": 12})
    assert plan.method.settings["step_size"] == pytest.approx(1 / 255)
    assert plan.evaluation.epsilon == pytest.approx(4 / 255)
    assert (plan.method.awp, plan.optimisation.epochs, plan.method.settings["adversarial_first"]) == (
        0.005,
        12,
        True,
    )
    plan = make_plan({"preset": "table1/cifar10/trades-awp", "method": "at"})
    assert (plan.method.name, plan.method.awp, plan.method.settings["init"]) == ("at", 0.005, "uniform")
    plan = make_plan({"preset": "table1/cifar10/st", "dataset": "parquet:x"})
    assert (plan.optimisation.epochs, plan.evaluation.select, plan.data.dataset) == (120, "test", "parquet:x")


def config(preset, **changes):
    """The full config.toml of an earlier run."""
    return make_plan({"preset": preset, **changes}).flat()


def again(base, **changes):
    return make_plan(over(base, changes))


def test_a_rows_run_with_a_recipe_keeps_its_method_and_data():
    plan = again(config("table1/cifar10/trades", dataset="cifar10:/mnt/c10"), preset="cifar10")
    assert (plan.data.dataset, plan.method.name, plan.evaluation.select) == ("cifar10:/mnt/c10", "trades", "val")
    plan = again(config("table4/rst", dataset="cifar10:/mnt/c10"), preset="cifar10")
    assert (plan.data.dataset, plan.data.extra_data, plan.method.settings["epsilon"]) == (
        "cifar10:/mnt/c10",
        None,
        8 / 255,
    )


def test_a_rows_run_with_another_row_finds_the_data_where_it_lay():
    base = config("table1/cifar10/st-awp", dataset="parquet:/mnt/c10")
    plan = again(base, preset="table1/cifar10/trades")
    assert (plan.data.dataset, plan.method.name, plan.method.awp) == ("parquet:/mnt/c10", "trades", None)
    assert plan == make_plan({"preset": "table1/cifar10/trades", "dataset": "parquet:/mnt/c10"})
    assert again(base, preset="table1/svhn/st").data.dataset == "svhn:data/svhn"
    base = config("table4/rst", extra_data="ti500k:/mnt/ti")
    assert again(base, preset="table4/st-rst").data.extra_data == "ti500k:/mnt/ti"


def test_a_rows_run_on_other_data_is_the_row_on_other_data():
    plan = again(config("table1/cifar10/trades"), dataset="cifar100:x")
    assert plan == make_plan({"preset": "table1/cifar10/trades", "dataset": "cifar100:x"})
    assert (plan.method.name, plan.evaluation.select) == ("trades", "test")


def test_a_data_set_of_another_kind_brings_its_recipe_to_any_method():
    base = config("digits", method="gairat", epochs=20, weighting="discrete")
    plan = again(base, dataset="cifar10:x")
    assert plan == make_plan({"method": "gairat", "dataset": "cifar10:x"})
    assert plan.method.settings["begin_epoch"] == 60


def test_saying_again_what_was_said_changes_nothing():
    base = config("table4/st-rst")
    plan = make_plan(base)
    assert again(base, epsilon=0.031, epochs=200, method="st", norm="linf") == plan
    assert make_plan({"preset": "table4/st-rst", "epsilon": 0.031}) == plan
    assert (plan.method.settings["step_size"], plan.evaluation.epsilon) == (0.007, 8 / 255)
    base = config("digits", method="gairat", epochs=30, begin_epoch=3)
    assert again(base, epochs=30).method.settings["begin_epoch"] == 3
    assert again(base, epochs=40).method.settings["begin_epoch"] == 20


def test_another_epsilon_over_a_row_keeps_the_rows_ratio():
    for plan in (
        make_plan({"preset": "table4/st-rst", "epsilon": 8 / 255}),
        again(config("table4/st-rst"), epsilon=8 / 255),
    ):
        assert plan.method.settings["step_size"] == pytest.approx(0.007 / 0.031 * 8 / 255)
        assert plan.evaluation.epsilon == 8 / 255


def test_another_norm_needs_an_epsilon_of_its_own():
    for base in (config("cifar10"), config("cifar10", epsilon=4 / 255)):
        with pytest.raises(UsageError, match="epsilon: expected one with norm = l2"):
            again(base, norm="l2")
        assert again(base, norm="l2", epsilon=0.5).evaluation.epsilon == 0.5
    plan = again(config("cifar10", norm="l2", epsilon=0.5), method="standard")
    assert (plan.norm, plan.evaluation.epsilon) == ("linf", 8 / 255)


def test_a_standard_rows_selection_does_not_stay_with_a_robust_method():
    plan = make_plan({"preset": "table5/cifar10/resnet18/standard", "method": "trades"})
    assert plan.evaluation.select_by == "pgd20"
    assert again(config("table5/cifar10/resnet18/standard"), method="trades").evaluation.select_by == "pgd20"


def test_a_rows_weight_perturbation_can_be_left_out_or_exchanged():
    row = {"preset": "table1/cifar10/st-awp"}
    plan = make_plan({**row, "awp": None})
    assert (plan.method.perturbation, plan.method.perturbation_warmup) == (None, 0)
    plan = make_plan({**row, "rwp": 0.005})
    assert (plan.method.awp, plan.method.rwp, plan.method.rwp_threshold, plan.method.perturbation_warmup) == (
        None,
        0.005,
        1.7,
        10,
    )
    assert make_plan({"dataset": "cifar100:x", "rwp": 0.005}).method.rwp_threshold == 4.0
    assert again(config("table1/cifar10/st-awp"), rwp=0.005).method.awp is None
    assert again(config("table1/cifar10/st-awp"), awp=None).method.perturbation is None
    assert plan_from(["--preset", "table1/cifar10/st-awp", "--awp", "none"])[0].method.perturbation is None


def test_a_perturbation_that_would_never_act_is_refused():
    with pytest.raises(UsageError, match=r"perturbation_warmup: expected at most 5.*received 10"):
        make_plan({"preset": "table1/cifar10/st-awp", "epochs": 5})
    with pytest.raises(UsageError, match="rwp_steps, rwp_threshold: expected rwp beside them"):
        make_plan({"rwp_steps": 3})


@pytest.mark.parametrize("name", PRESETS)
def test_a_rows_plan_comes_back_from_its_config(name):
    plan = make_plan({"preset": name})
    assert make_plan(plan.flat()) == make_plan(over(plan.flat(), {})) == plan


def test_a_runs_config_with_another_preset_takes_all_of_it():
    flat = make_plan({"preset": "table1/svhn/st-awp", "backend": "keras"}).flat()
    plan = make_plan(over(flat, {"preset": "table1/cifar10/at"}))
    assert (plan.method.name, plan.optimisation.learning_rate, plan.runtime.backend) == ("at", 0.1, "keras")
    assert plan.flat()["dataset"] == "cifar10:data"
    assert plan.method.awp is None


def test_weights_of_a_run_say_their_method(tmp_path):
    load("torch")
    assert train(tmp_path / "run", method="bat").code == 0
    assert load_weights(tmp_path / "run" / "last.safetensors")[1]["method"] == "bat"
    assert SETTINGS["model"] == "tiny"
