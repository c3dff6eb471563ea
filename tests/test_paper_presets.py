"""The paper's rows as presets: all there, their numbers as printed, every setting with its source."""

import json

import pytest

from stcore import measured, methods
from stcore.cli.presets import main
from stcore.errors import UsageError
from stcore.paper import PRESETS, Expected, Preset, estimated_cost
from stcore.paper.cost import macs_per_image, passes_of
from stcore.paper.preset import COLUMNS, SOURCES
from stcore.runs.known_presets import find, matching
from stcore.runs.plan import make_plan

ON_EACH = pytest.mark.parametrize("name", PRESETS)
CIFARS = ("cifar10", "cifar100")
MAIN = ("natural", "fgsm", "pgd20", "pgd100", "cw100", "autoattack")


def names():
    """Every name there should be."""
    for data in (*CIFARS, "svhn"):
        yield from (f"table1/{data}/{row}" for row in ("at", "trades", "mart", "st", "trades-awp", "st-awp"))
        yield from (f"table6/{data}/{row}" for row in ("at2", "trades2", "mart2", "trades2-awp"))
    grid = {
        "trades/kl": (2, 4, 6, 8, 10),
        "trades/squared-l2": (6, 8, 16, 24),
        "st/squared-l2": (2, 3, 4, 6, 8),
        "trades/js": (16, 24, 32, 48),
        "st/js": (6, 8, 12, 16),
        "trades/symmetric-kl": (4, 6, 8, 12, 16),
        "st/symmetric-kl": (2, 4, 6, 8, 10),
    }
    yield from (f"table2/{row}/beta-{beta}" for row, betas in grid.items() for beta in betas)
    yield from (f"table3/wrn-34-5/{method}" for method in ("trades", "st"))
    yield from (f"table3/wrn-34-10/{method}" for method in ("trades", "mart", "st"))
    yield from (f"table4/{row}" for row in ("rst", "bat-rst", "gair-rst", "awp-rst", "rwp-rst", "st-rst"))
    for data in CIFARS:
        for model in ("resnet18", "wrn-34-10"):
            yield from (f"table5/{data}/{model}/{row}" for row in ("standard", "at", "trades", "mart"))
        yield from (f"figure4/{data}/{row}" for row in ("standard", "collaborative"))
        yield from (f"figure9/{data}/{row}" for row in ("trades", "st"))
    yield from ("figure10/rst", "figure10/st-rst")
    yield from ("appendix-c/st-half-steps", "appendix-c/trades-double-steps")
    yield from (f"appendix-c/trades2-{on}" for on in ("rst", "wrn-34-5", "wrn-34-10"))


# What there is


def test_every_row_has_its_preset():
    assert set(PRESETS) == set(names())
    assert len(PRESETS) == 104
    assert len(matching("table2")) == 32
    assert all(name == preset.name for name, preset in PRESETS.items())


def test_a_prefix_ends_at_a_slash():
    assert [preset.name for preset in matching("table1/cifar10/")] == [
        f"table1/cifar10/{row}" for row in ("at", "trades", "mart", "st", "trades-awp", "st-awp")
    ]
    assert [preset.name for preset in matching("table4/rst")] == ["table4/rst"]
    assert [preset for preset in matching() if isinstance(preset, Preset)] == list(PRESETS.values())


@pytest.mark.parametrize("wrong", ["table1/cifar10/sst", "table1/cif", "nothing"])
def test_an_unknown_name_is_told_with_those_close_to_it(wrong):
    for look in (find, matching):
        with pytest.raises(
            UsageError, match=rf"or a row of the paper \(stcli presets lists them\); received '{wrong}'"
        ):
            look(wrong)
    with pytest.raises(UsageError, match="Did you mean 'table1/cifar10/st' or"):
        find("table1/cifar10/sst")


# Settings


@ON_EACH
def test_every_setting_has_a_source_of_a_known_kind(name):
    preset = PRESETS[name]
    assert preset.settings.keys() == preset.sources.keys()
    for source in preset.sources.values():
        assert source.startswith(SOURCES)
        assert source.count("(") == source.count(")")
    assert not preset.settings.keys() & {"backend", "seed", "out", "preset"}


@ON_EACH
def test_the_settings_are_a_plan(name):
    settings = PRESETS[name].settings
    plan = make_plan(dict(settings))
    flat = plan.flat()
    for setting, value in settings.items():
        assert flat[setting] == (",".join(value) if setting == "attacks" else value)
    own = {key: value for key, value in settings.items() if key in methods.fields(plan.method.name)}
    assert plan.objective == methods.make_objective(plan.method.name, own)  # no recipe fills in what is not said


@ON_EACH
def test_the_row_is_evaluated_by_its_attacks(name):
    preset = PRESETS[name]
    assert set(preset.expected) <= set(COLUMNS)
    assert set(preset.uncertain) <= set(preset.expected)
    columns = {*preset.expected} - {"natural"}
    assert set(preset.settings["attacks"]) == (columns or {"pgd20"})
    assert preset.measured is None


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        (
            "table1/cifar10/st",
            {"method": "st", "beta": 6.0, "epsilon": 8 / 255, "step_size": 2 / 255, "steps": 10},
        ),
        (
            "table1/cifar10/st",
            {"dataset": "cifar10:data", "model": "resnet18", "select": "test", "nesterov": False},
        ),
        ("table1/cifar100/st", {"beta": 4.0, "epochs": 120, "learning_rate": 0.1, "drops": (80 / 120, 100 / 120)}),
        ("table1/svhn/st", {"beta": 8.0, "step_size": 1 / 255, "epochs": 80, "augment": "none"}),
        ("table1/svhn/trades", {"beta": 6.0, "learning_rate": 0.01, "drops": (50 / 80, 65 / 80)}),
        ("table1/svhn/mart", {"beta": 5.0, "dataset": "svhn:data/svhn", "weight_decay": 5e-4}),
        ("table1/cifar10/at", {"init": "uniform", "batch_size": 128, "momentum": 0.9}),
        ("table1/cifar10/st-awp", {"method": "st", "awp": 0.005, "perturbation_warmup": 10, "beta": 6.0}),
        ("table2/st/js/beta-12", {"divergence": "js", "beta": 12.0}),
        ("table2/trades/squared-l2/beta-24", {"method": "trades", "divergence": "squared_l2", "beta": 24.0}),
        ("table3/wrn-34-5/st", {"model": "wrn-34-5", "epochs": 120}),
        ("table4/rst", {"method": "trades", "share_natural": True, "adversarial_first": True, "divergence": "kl"}),
        ("table4/st-rst", {"init": "uniform", "epsilon": 0.031, "step_size": 0.007, "eval_epsilon": 8 / 255}),
        ("table4/st-rst", {"model": "wrn-28-10", "schedule": "cosine", "nesterov": True, "batch_size": 256}),
        ("table4/bat-rst", {"method": "bat", "segments": 2, "inner": "cross_entropy"}),
        ("table4/gair-rst", {"method": "gair-rst", "shift": 3.0, "begin_epoch": 100, "confidence": 50.0}),
        ("table4/rwp-rst", {"rwp": 0.005, "rwp_threshold": 1.7, "rwp_steps": 10, "perturbation_warmup": 10}),
        ("table5/cifar100/wrn-34-10/standard", {"method": "standard", "select_by": "natural"}),
        ("table6/svhn/mart2", {"method": "mart2", "examples": 2, "combine": "mean", "beta": 5.0}),
        ("figure10/rst", {"eval_epsilon": 0.031, "test_size": 500, "extra_fraction": 0.5}),
        ("appendix-c/st-half-steps", {"method": "st", "steps": 5, "step_size": 2 / 255}),
        ("appendix-c/trades-double-steps", {"method": "trades", "steps": 20}),
    ],
)
def test_settings_are_those_of_the_sources(name, settings):
    assert settings.items() <= find(name).settings.items()


def test_what_nothing_gives_is_named_as_our_choice():
    for name, setting in {
        "table1/cifar10/at": "init",
        "table1/cifar10/st-awp": "awp",
        "table3/wrn-34-5/st": "epochs",
        "table4/bat-rst": "segments",
        "table5/cifar10/resnet18/standard": "learning_rate",
        "figure4/cifar10/collaborative": "beta",
        "appendix-c/st-half-steps": "step_size",
    }.items():
        assert find(name).sources[setting].startswith("our choice: unspecified (")
    assert find("table1/cifar10/st").sources["beta"] == "paper §5.1"
    assert find("table1/cifar10/st").sources["stop_gradient_targets"] == "released code (losses.py)"


def test_which_checkpoint_and_whose():
    last = {preset.name for preset in PRESETS.values() if preset.checkpoint == "last"}
    assert last == {
        *(f"table4/{row}" for row in ("rst", "bat-rst", "gair-rst", "st-rst")),
        *("figure10/rst", "figure10/st-rst", "appendix-c/trades2-rst"),
    }
    assert {preset.checkpoint for preset in PRESETS.values()} == {"best", "last"}
    quoted = {preset.name for preset in PRESETS.values() if not preset.trained_by_authors}
    assert quoted == {f"table4/{row}" for row in ("bat-rst", "gair-rst", "awp-rst", "rwp-rst")}


# Numbers


@pytest.mark.parametrize(
    ("name", "attack", "mean", "half_width"),
    [
        ("table1/cifar10/at", "natural", 82.78, 0.12),
        ("table1/cifar10/at", "autoattack", 47.63, 0.08),
        ("table1/cifar10/trades", "pgd20", 52.76, 0.08),
        ("table1/cifar10/mart", "cw100", 49.35, 0.27),
        ("table1/cifar10/st", "natural", 83.10, 0.10),
        ("table1/cifar10/st", "pgd20", 54.62, 0.14),
        ("table1/cifar10/st", "autoattack", 50.50, 0.07),
        ("table1/cifar10/trades-awp", "pgd100", 54.45, 0.14),
        ("table1/cifar10/st-awp", "fgsm", 59.73, 0.14),
        ("table1/cifar100/at", "pgd100", 28.49, 0.16),
        ("table1/cifar100/trades", "autoattack", 24.71, 0.09),
        ("table1/cifar100/mart", "fgsm", 33.12, 0.26),
        ("table1/cifar100/st", "cw100", 26.70, 0.20),
        ("table1/cifar100/trades-awp", "natural", 58.76, 0.07),
        ("table1/cifar100/st-awp", "pgd20", 32.22, 0.14),
        ("table1/svhn/at", "cw100", 48.39, 0.18),
        ("table1/svhn/trades", "natural", 90.20, 0.20),
        ("table1/svhn/mart", "pgd20", 54.70, None),
        ("table1/svhn/mart", "fgsm", 64.16, 0.24),
        ("table1/svhn/st", "pgd100", 56.00, 0.22),
        ("table1/svhn/trades-awp", "autoattack", 52.54, 0.12),
        ("table1/svhn/st-awp", "fgsm", 67.77, 0.25),
        ("table3/wrn-34-5/st", "pgd_trades", 57.10, None),
        ("table3/wrn-34-10/trades", "autoattack", 52.94, None),
        ("table3/wrn-34-10/mart", "natural", 84.17, None),
        ("table3/wrn-34-10/st", "autoattack", 53.54, None),
        ("table4/rst", "pgd_rst", 62.09, None),
        ("table4/rwp-rst", "autoattack", 60.36, None),
        ("table4/awp-rst", "natural", 88.25, None),
        ("table4/st-rst", "pgd_rst", 63.55, None),
        ("table5/cifar10/resnet18/standard", "natural", 95.09, None),
        ("table5/cifar10/wrn-34-10/at", "autoattack", 48.31, None),
        ("table5/cifar100/resnet18/mart", "autoattack", 25.15, None),
        ("table5/cifar100/wrn-34-10/standard", "autoattack", 0.0, None),
        ("table5/cifar100/wrn-34-10/trades", "natural", 57.10, None),
        ("table6/cifar10/at2", "autoattack", 47.56, None),
        ("table6/cifar10/mart2", "pgd100", 54.16, 0.31),
        ("table6/cifar10/trades2-awp", "pgd20", 55.13, 0.11),
        ("table6/cifar100/trades2", "cw100", 25.90, 0.31),
        ("table6/cifar100/trades2-awp", "pgd100", 31.64, None),
        ("table6/svhn/trades2", "fgsm", 63.23, 0.25),
        ("table6/svhn/mart2", "natural", 86.72, None),
        ("appendix-c/st-half-steps", "natural", 84.37, None),
        ("appendix-c/trades-double-steps", "natural", 81.57, 0.14),
        ("appendix-c/trades-double-steps", "autoattack", 49.76, 0.09),
        ("appendix-c/trades2-rst", "autoattack", 59.96, None),  # 59.54 + 0.42
        ("appendix-c/trades2-wrn-34-5", "natural", 83.09, None),  # 83.11 − 0.02
        ("appendix-c/trades2-wrn-34-10", "autoattack", 51.76, None),  # 52.94 − 1.18
        ("table2/trades/kl/beta-6", "natural", 82.41, 0.12),
        ("table2/st/symmetric-kl/beta-6", "autoattack", 50.50, 0.07),
    ],
)
def test_numbers_are_as_printed(name, attack, mean, half_width):
    assert find(name).expected[attack] == Expected(mean, half_width)


def test_the_gains_the_text_speaks_of_come_out():
    """Section 5.2: over TRADES on CIFAR-10, without AWP and with; section 5.3: over RWP-RST."""

    def gain(one, other, attack):
        return round(find(one).expected[attack].mean - find(other).expected[attack].mean, 2)

    assert gain("table1/cifar10/st", "table1/cifar10/trades", "autoattack") == 1.13
    assert gain("table1/cifar10/st", "table1/cifar10/trades", "natural") == 0.69
    assert gain("table1/cifar10/st-awp", "table1/cifar10/trades-awp", "autoattack") == 0.92
    assert gain("table1/cifar10/st-awp", "table1/cifar10/trades-awp", "natural") == 1.37
    assert gain("table4/st-rst", "table4/rwp-rst", "autoattack") == 0.39
    assert gain("table4/st-rst", "table4/rwp-rst", "natural") == 1.53


@ON_EACH
def test_stronger_attacks_leave_less(name):
    preset = PRESETS[name]
    means = [value.mean for attack in MAIN if (value := preset.expected.get(attack)) is not None]
    assert all(0 <= mean <= 100 for mean in means)
    if name != "table6/cifar100/trades2-awp":  # whose PGD-100 is above its PGD-20 as printed
        assert means == sorted(means, reverse=True)


def test_what_is_lost_is_none_and_what_is_blank_is_not_there():
    lost = {(p.name, attack) for p in PRESETS.values() for attack, value in p.expected.items() if value is None}
    drawn = {p.name for p in PRESETS.values() if p.note.startswith("Drawn in Fig. ")}
    assert {(name, attack) for name, attack in lost if name not in drawn} == {("table6/cifar10/mart2", "pgd20")}
    assert all(set(PRESETS[name].expected.values()) == {None} for name in drawn)
    assert len([name for name in drawn if name.startswith("table2/")]) == 30
    assert "pgd_trades" not in find("table3/wrn-34-10/mart").expected
    assert "pgd_rst" not in find("table4/gair-rst").expected


def test_reconstructed_digits_are_flagged():
    uncertain = {preset.name: preset.uncertain for preset in PRESETS.values() if preset.uncertain}
    assert uncertain == {
        "table1/cifar10/mart": MAIN,
        "table1/cifar100/at": MAIN,
        "table1/cifar100/trades-awp": MAIN,
        "table1/svhn/mart": MAIN,
        "table6/cifar10/trades2": ("natural", "pgd20", "cw100"),
        "table6/cifar10/mart2": ("autoattack",),
    }


# Cost


@pytest.mark.parametrize(
    ("model", "billions"), [("resnet18", 0.555), ("wrn-34-5", 1.672), ("wrn-28-10", 5.243), ("wrn-34-10", 6.659)]
)
def test_an_image_costs_what_was_counted_on_the_published_networks(model, billions):
    assert macs_per_image(model) / 1e9 == pytest.approx(billions, abs=5e-4)


def test_a_network_with_pooling_and_biases():
    conv = 32 * 32 * 9 * (3 * 64 + 64 * 64) + 16 * 16 * 9 * (64 * 128 + 128 * 128)
    conv += 8 * 8 * 9 * (128 * 256 + 2 * 256 * 256) + 4 * 4 * 9 * (256 * 512 + 2 * 512 * 512)
    conv += 2 * 2 * 9 * 3 * 512 * 512
    assert macs_per_image("vgg16-bn") == conv + 5120


@ON_EACH
def test_every_preset_has_a_cost(name):
    assert 9e15 < estimated_cost(PRESETS[name]) < 1e19


def test_squeeze_training_costs_sixty_units_where_the_released_code_costs_seventy():
    """The released code forwards natural images anew in every inner step: 70 units, 2.3e17; ours: 60, 2.0e17."""
    preset = find("table1/cifar10/st")
    assert passes_of(preset.settings).units == 60
    assert estimated_cost(preset) == 60 * 120 * 50_000 * macs_per_image("resnet18")
    assert estimated_cost(preset) * 70 / 60 == pytest.approx(2.3e17, rel=0.02)
    assert estimated_cost(find("table4/st-rst")) * 70 / 60 == pytest.approx(3.7e18, rel=0.01)


def test_a_weight_perturbation_repeats_the_outer_passes_from_its_first_epoch_on():
    plain, awp = (estimated_cost(find(f"table1/cifar10/{row}")) for row in ("st", "st-awp"))
    assert awp / plain == pytest.approx((120 * 60 + 111 * 9) / (120 * 60))  # epochs 10 to 120
    rst, awp, rwp = (estimated_cost(find(f"table4/{row}")) for row in ("rst", "awp-rst", "rwp-rst"))
    assert rwp - rst == pytest.approx(10 * (awp - rst))


# The command


def test_json_holds_everything(capsys):
    assert main(["--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in told] == [*measured.names(), *PRESETS]
    told = told[len(measured.names()) :]
    for one, preset in zip(told, PRESETS.values(), strict=True):
        assert one.pop("cost_mac") == estimated_cost(preset)
        assert one == preset.as_json()
        assert one["settings"] == json.loads(json.dumps(dict(preset.settings)))
        for attack, value in preset.expected.items():
            assert one["expected"][attack] == (value and {"mean": value.mean, "half_width": value.half_width})
    (mart,) = (one for one in told if one["name"] == "table6/cifar10/mart2")
    assert mart["expected"]["pgd20"] is None


def test_the_list_has_a_line_for_each(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    lines = {line.split()[1]: line for line in said.splitlines() if line.startswith("│")}
    assert set(lines) == {*measured.names(), *PRESETS}
    st = lines["table1/cifar10/st"]
    for cell in ("83.10 ± 0.10", "54.62 ± 0.14", "50.50 ± 0.07", "2.0e+17", "not run by us"):
        assert cell in st
    assert "88.70?" in lines["table1/svhn/mart"]
    assert "–" in lines["table6/cifar10/mart2"]


def test_a_prefix_filters_the_list(capsys):
    assert main(["table1/cifar10"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert len(lines) == 6


def test_one_preset_is_shown_with_every_source(capsys):
    assert main(["table1/cifar10/st-awp"]) == 0
    said = capsys.readouterr().out
    preset = find("table1/cifar10/st-awp")
    for setting, source in preset.sources.items():
        assert any(setting in line and source in line for line in said.splitlines())
    for word in ("8/255", "55.56 ± 0.13", "best checkpoint", "not run by us", "evaluation not counted"):
        assert word in said


def test_an_unknown_preset_is_a_usage_error():
    with pytest.raises(UsageError, match="Did you mean 'table1/cifar10/st'"):
        main(["table1/cifar10/stt"])
