"""Learning rates by epoch, and the recipes: the paper's values, epoch by epoch."""

import itertools

import pytest

from stcore import presets
from stcore.core.optimizers import SGD, AdamW
from stcore.errors import UsageError
from stcore.runs.plan import make_plan
from stcore.runs.preparation import schedules_of
from stcore.training.schedules import make_schedule


def rates(dataset_preset, **given):
    """(learning rate, number of epochs it lasts), in order."""
    plan = make_plan({"preset": dataset_preset, **given})
    factor = make_schedule(plan.optimisation.schedule, plan.optimisation.drops)
    each = [
        round(plan.optimisation.learning_rate * factor(epoch, plan.optimisation.epochs), 12)
        for epoch in range(1, plan.optimisation.epochs + 1)
    ]
    return [(rate, len(list(group))) for rate, group in itertools.groupby(each)]


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        ("cifar10", [(0.1, 79), (0.01, 20), (0.001, 21)]),
        ("cifar100", [(0.1, 79), (0.01, 20), (0.001, 21)]),
        ("svhn", [(0.01, 49), (0.001, 15), (0.0001, 16)]),
    ],
)
def test_the_rate_drops_at_the_papers_epochs(preset, expected):
    assert rates(preset) == expected


def test_a_tenth_of_a_tenth_is_exact():
    schedule = make_schedule("step", (0.5, 0.75, 0.9))
    assert [schedule(epoch, 20) for epoch in (1, 10, 15, 18)] == [1, 0.1, 0.01, 0.001]
    assert make_schedule("step", (0.5,), 0.0)(20, 20) == 0


def test_drops_scale_with_the_number_of_epochs():
    assert rates("cifar10", epochs=12) == [(0.1, 7), (0.01, 2), (0.001, 3)]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_short_run_starts_at_the_base_rate(epochs):
    assert rates("cifar10", epochs=epochs)[0][0] == 0.1


@pytest.mark.parametrize(
    ("epoch", "rate"),
    [(1, 0.1), (2, 0.09999383), (50, 0.08590631), (101, 0.05), (150, 0.01520436), (200, 6.17e-6)],
)
def test_cosine_has_the_published_values(epoch, rate):
    factor = make_schedule("cosine", ())
    assert 0.1 * factor(epoch, 200) == pytest.approx(rate, rel=1e-3, abs=5e-9)


@pytest.mark.parametrize(("epoch", "factor"), [(1, 0), (2, 0.5), (3, 1), (3.6, 0.8), (5, 1 / 3), (6, 0)])
def test_one_cycle_rises_for_two_fifths_and_falls(epoch, factor):
    assert make_schedule("one-cycle", ())(epoch, 5) == pytest.approx(factor, abs=1e-12)


def test_constant_is_constant():
    assert rates("cifar10", schedule="constant") == [(0.1, 120)]


def test_drops_outside_the_run_are_refused():
    for drops in ([1.5], [-0.5], [float("nan")]):
        with pytest.raises(UsageError, match=r"drops .*expected a number in \[0, 1\]"):
            make_plan({"drops": drops})


@pytest.mark.parametrize(
    ("preset", "beta", "step_size"), [("cifar10", 6, 2 / 255), ("cifar100", 4, 2 / 255), ("svhn", 8, 1 / 255)]
)
def test_presets_hold_the_papers_settings(preset, beta, step_size):
    plan = make_plan({"preset": preset})
    assert plan.method.settings == {
        "epsilon": 8 / 255,
        "step_size": step_size,
        "steps": 10,
        "beta": beta,
        "divergence": "symmetric_kl",
        "inner_divergence": None,
        "stop_gradient_targets": True,
        "init": "gaussian",
        "noise_std": 1e-3,
        "norm": "linf",
        "bounds": (0.0, 1.0),
        "label_smoothing": 0.0,
    }
    assert (plan.model.name, plan.optimisation.batch_size) == ("resnet18", 128)
    assert (plan.optimisation.momentum, plan.optimisation.nesterov, plan.optimisation.weight_decay) == (
        0.9,
        False,
        5e-4,
    )
    assert plan.data.augment == ("none" if preset == "svhn" else "crop-flip")
    assert (plan.evaluation.select, plan.evaluation.select_by, plan.evaluation.epsilon) == (
        "val",
        "pgd20",
        8 / 255,
    )


def test_the_presets_step_keeps_its_share_of_epsilon():
    assert make_plan({"preset": "cifar10", "epsilon": 0.04}).method.settings["step_size"] == pytest.approx(0.01)
    assert make_plan({"preset": "svhn", "epsilon": 0.04}).method.settings["step_size"] == pytest.approx(0.005)
    assert make_plan({"epsilon": 0.04, "step_size": 0.3}).method.settings["step_size"] == 0.3


@pytest.mark.parametrize("preset", presets.RECIPES)
@pytest.mark.parametrize("method", ["st", "at", "standard"])
def test_every_preset_completes_every_method(preset, method):
    plan = make_plan({"preset": preset, "method": method})
    assert make_plan(plan.flat()) == plan


def test_the_preset_follows_the_data():
    assert make_plan({}).preset == "digits"
    assert make_plan({"dataset": "parquet:/somewhere"}).preset == "cifar10"


@pytest.mark.parametrize("schedule", ["step", "cosine", "constant"])
def test_a_warm_up_rises_to_the_schedule_step_by_step(schedule):
    plan = make_plan({"preset": "cifar10", "schedule": schedule, "warmup": 2, "epochs": 10})
    warmed, plain = schedules_of(plan), make_schedule(schedule, plan.optimisation.drops)
    assert warmed.by_step
    for epoch, done in itertools.product((1, 2, 3, 9), (0.0, 0.25, 0.5)):
        factor = min(1.0, (epoch - 1 + done) / 2)
        assert warmed.rate(epoch, done) == pytest.approx(0.1 * factor * plain(epoch + done, 10), rel=1e-12)


def test_adamw_has_defaults_of_its_own_whatever_the_recipe():
    assert presets.RECIPES["svhn"]["learning_rate"] != presets.ADAMW["learning_rate"]
    for preset in presets.RECIPES.keys() - {"finetune/adamw"}:
        given = make_plan({"preset": preset, "optimizer": "adamw"}).optimisation
        assert (given.learning_rate, given.weight_decay, given.momentum) == (1e-3, 0.05, None)
        assert given.updates == AdamW(learning_rate=1e-3, weight_decay=0.05, decay_vectors=False)
    rows = make_plan({"preset": "table1/cifar10/st", "optimizer": "adamw", "weight_decay": 0.1}).optimisation
    assert (rows.learning_rate, rows.weight_decay, rows.nesterov) == (1e-3, 0.1, False)


def test_fine_tuning_is_as_published():
    sgd, adamw = (make_plan({"preset": f"finetune/{name}"}) for name in ("sgd", "adamw"))
    assert sgd.optimisation.updates == SGD(learning_rate=0.1, momentum=0.9, weight_decay=1e-4)
    rates = schedules_of(sgd)
    assert [rates.rate(epoch, 0.0) for epoch in (1, 35, 36, 38, 39, 40)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.001, 0.001]
    )
    assert (sgd.optimisation.clip_norm, sgd.optimisation.epochs) == (1.0, 40)
    assert adamw.optimisation.updates == AdamW(learning_rate=6.25e-6, weight_decay=0.5, decay_vectors=False)
    assert (adamw.optimisation.schedule, adamw.optimisation.warmup) == ("cosine", 5)
    assert adamw.method.settings["step_size"] == pytest.approx(1.5 * 8 / 255 / 5)
    assert make_plan({"preset": "finetune/adamw", "epochs": 4}).optimisation.warmup == 1
    other = make_plan({"preset": "finetune/adamw", "optimizer": "sgd"}).optimisation
    assert other.updates == make_plan({"preset": "cifar10"}).optimisation.updates


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"warmup": 21}, "warmup: expected at most 20, all epochs; received 21"),
        ({"warmup": 1, "schedule": "one-cycle"}, "warmup: expected none with schedule = one-cycle"),
        ({"optimizer": "adamw", "momentum": 0.9}, "momentum: expected none with optimizer = adamw"),
        ({"optimizer": "adamw", "nesterov": True}, "nesterov: expected none with optimizer = adamw"),
        ({"betas": (0.9, 0.99)}, "betas: expected none with optimizer = sgd"),
        ({"optimizer": "adamw", "betas": (0.9,)}, "betas: expected two numbers"),
        ({"optimizer": "adamw", "betas": (0.9, 1.1)}, r"betas: expected a number in \[0, 1\]"),
        ({"optimizer": "adam"}, "Did you mean 'adamw'"),
        ({"clip_norm": 0}, "clip_norm: expected a number of at least"),
        ({"layer_decay": 1.5}, r"layer_decay: expected a number in \[0, 1\]"),
        ({"nesterov": True, "momentum": 0}, "nesterov: expected a momentum above 0"),
    ],
)
def test_settings_of_the_optimizer_that_do_not_fit_are_refused(given, said):
    with pytest.raises(UsageError, match=said):
        make_plan({"preset": "digits", **given})
