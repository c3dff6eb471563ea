"""Benchmarks: the steps they compare compute the same numbers, and their tables are right."""

import argparse
import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from harness import BENCHMARKS, load

import stcore
from stcore import SqueezeConfig
from stcore.core.objective import training_step
from stcore.evaluation.accuracy import Accuracy


def test_the_plain_step_and_ours_are_one_step_in_float64(benchmark):
    """Three updates of ResNet-8: so the ratio of their times is one of the same work."""
    backend = load("torch")
    import torch

    plain_torch = benchmark("plain_torch")
    rng = np.random.default_rng(0)
    pixels, labels = rng.random((4, 16, 16, 3)), rng.integers(0, 10, 4)
    draws = [rng.standard_normal(pixels.shape) for _ in range(2)]

    def updated(ours):
        model = stcore.models.build("resnet8", "torch", num_classes=10, dtype="float64")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        learner = stcore.make_learner(model, optimizer)
        x, y, noise = learner.images(pixels), learner.labels(labels), tuple(map(learner.images, draws))
        for _ in range(3):
            if ours:
                loss = training_step(learner, SqueezeConfig(steps=3), x, y, noise).loss
            else:
                loss = plain_torch.step(model, optimizer, x, y, noise, steps=3)
        return float(loss), learner.weights()

    (loss, weights), (other, theirs) = updated(ours=True), updated(ours=False)
    assert loss == pytest.approx(other, rel=1e-12)
    for name, array in weights.items():
        np.testing.assert_allclose(array, theirs[name], rtol=1e-9, atol=1e-12, err_msg=name)
    assert backend.name == "torch"


@pytest.mark.parametrize("powers", [(0, 1), (0, 2), (0, 1, 2)])
def test_a_law_is_found_again(benchmark, powers):
    scaling = benchmark("scaling")
    values, coefficients = (1, 2, 3, 5, 8), [0.3, 0.02, 0.01][: len(powers)]
    seconds = [sum(c * value**power for c, power in zip(coefficients, powers, strict=True)) for value in values]
    fitted = scaling.fit(values, seconds, powers)
    np.testing.assert_allclose(fitted["coefficients"], coefficients, rtol=1e-6)
    np.testing.assert_allclose(fitted["relative_residuals"], 0, atol=1e-6)


def test_of_several_rounds_of_autoattack_the_fastest_counts(benchmark):
    cost = benchmark("autoattack_cost").Cost
    one = cost([True, False], 9, 5, 1, seconds=3.0, cpu_seconds=1.0)
    assert one.fastest(replace(one, seconds=2.0, cpu_seconds=1.5)) == replace(one, seconds=2.0)
    with pytest.raises(ValueError, match="the same in every round"):
        one.fastest(replace(one, robust=[True, True]))


def test_a_released_network_is_read_as_it_was_released(benchmark, tmp_path):
    """Its layers on normalised pixels; alone in a list, as its authors keep it."""
    import torch

    small_networks = benchmark("small_networks")
    layers = small_networks.provable_layers()
    path, x = tmp_path / "net.pth", torch.rand(2, 3, 32, 32)
    torch.save({"state_dict": [layers.state_dict()]}, path)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    torch.testing.assert_close(small_networks.provable(path)(x), layers((x - mean) / 0.225))
    assert small_networks.perceptron(10, 1, (8, 8))(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_ratios_are_taken_round_by_round(benchmark):
    rounds = benchmark("rounds")
    seconds = {"slow": [2.0, 4.0, 9.0], "plain": [1.0, 2.0, 3.0]}
    assert rounds.ratio(seconds, "slow", "plain") == (2.0, 2.0, 3.0)


def test_a_forward_of_resnet_18_is_as_long_as_published(benchmark):
    """0.555 G multiplications and as many additions, 32 × 32: what shares of the ceiling are reckoned by."""
    pytest.importorskip("torch")
    ladder = benchmark("ladder")
    operations = ladder.forward_operations(SimpleNamespace(model="resnet18"))
    assert operations / 2 == pytest.approx(0.555e9, rel=5e-3)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_rung_is_worth_the_operations_that_it_makes(benchmark, steps):
    """Plain and ours, counted: within what two more or fewer elementwise products and the ways back's first layer
    come to (no gradient of the pixels is taken of the outer loss)."""
    pytest.importorskip("torch")
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class Counter(TorchDispatchMode):  # torch's own does not bear `autograd.grad`
        total = 0

        def __torch_dispatch__(self, operation, types, given=(), named=None):
            out, named = operation(*given, **(named or {})), named or {}
            if operation.overloadpacket in flop_registry:
                self.total += flop_registry[operation.overloadpacket](*given, **named, out_val=out)
            return out

    ladder, size = benchmark("ladder"), 2
    args = SimpleNamespace(model="resnet8", device="cpu", batch=size, steps=steps)
    forward = ladder.forward_operations(args)
    for make in (ladder.plain, ladder.ours):
        run, units = make(args)
        with Counter() as counter:
            run()
        assert counter.total / (size * forward) == pytest.approx(units, rel=0.02)


def test_a_page_has_the_command_that_measured_it(benchmark, tmp_path, capsys):
    rounds, parser = benchmark("rounds"), argparse.ArgumentParser(prog="steps.py")
    parser.add_argument("name")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--models", nargs="+", default=["a"])
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    words = ["digits", "--models", "a", "b c", "--variants", "--out", str(tmp_path)]
    args = parser.parse_args(words)
    ran = rounds.command(parser, args)
    assert ran == "python benchmarks/steps.py digits --models a 'b c' --variants"
    assert vars(parser.parse_args(shlex.split(ran)[2:])) == {**vars(args), "out": Path("docs/results")}
    table = rounds.table(("n", "s"), [(1, "2.0")])
    rounds.publish(tmp_path / "new", "it", "Title", "About.", ran, table, {"batch": 32}, {"torch": "2"}, rows=[1])
    page = (tmp_path / "new" / "it.md").read_text()
    assert page.startswith("# Title\n\nAbout. ")
    assert page.endswith(f"\n\n    {ran}\n\n| n | s |\n| --- | --- |\n| 1 | 2.0 |\n")
    assert page in capsys.readouterr().out
    kept = json.loads((tmp_path / "new" / "it.json").read_text())
    assert (kept["settings"], kept["environment"]["torch"], kept["rows"]) == ({"batch": 32}, "2", [1])


def test_variants_are_compared_seed_by_seed(benchmark):
    """Paired: what all seeds share drops out of the difference. Intervals by scipy's paired t-test."""
    from scipy.stats import ttest_rel

    variants = benchmark("variants")
    ours, theirs = [0.50, 0.60, 0.73], [0.48, 0.57, 0.69]

    def runs(values, seconds):
        return [
            SimpleNamespace(accuracies={"pgd20": Accuracy(round(100 * v), 100)}, seconds=(9.0, seconds, seconds))
            for v in values
        ]

    found = variants.summary(runs(ours, 2.0), runs(theirs, 4.0))
    expected = ttest_rel(ours, theirs).confidence_interval()
    np.testing.assert_allclose(found["differences"]["pgd20"], [3, 100 * expected.low, 100 * expected.high])
    assert found["ratio"] == (0.5, 0.5, 0.5)
    assert (found["seconds"], found["ratio_of_seconds"]) == (13.0, (13 / 17,) * 3)
    assert found["first_epoch_seconds"] == 9.0
    assert variants.plus_minus([-0.25, -0.75, 0.25], "+") == "−0.2 ± 0.5"
    assert variants.plus_minus(variants.interval([51.94])) == "51.9"


def test_two_result_files_are_compared(benchmark, tmp_path, monkeypatch, capsys):
    compare = benchmark("compare")
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    same, twice = [1.0, 1.1, 0.9, 1.05, 0.95], [2.0, 2.2, 1.8, 2.1, 1.9]
    for path, late, cpu in ((before, same, "A"), (after, twice, "B")):
        rows = {"steady": {"seconds": same}, "late": {"seconds": late, "passes": [1.0, 2.0]}}
        path.write_text(json.dumps({"settings": {"batch": 4}, "environment": {"cpu": cpu}, "engines": rows}))
    monkeypatch.setattr(sys, "argv", ["compare.py", str(before), str(after)])
    compare.main()
    said = capsys.readouterr().out
    assert "environment differ: cpu was A, is B" in said
    assert "settings differ" not in said
    assert "| engines / steady | 1.000 | 1.000 | 1.00 | 1.000 | no difference |" in said
    assert "| engines / late | 1.000 | 2.000 | 2.00 | 0.008 | slower |" in said
    assert "passes" not in said


def test_files_without_a_row_in_common_are_refused(benchmark, tmp_path, monkeypatch, capsys):
    compare = benchmark("compare")
    for name in ("a", "b"):
        (tmp_path / name).write_text(json.dumps({name: {"seconds": [1.0]}}))
    monkeypatch.setattr(sys, "argv", ["compare.py", str(tmp_path / "a"), str(tmp_path / "b")])
    with pytest.raises(SystemExit) as stopped:
        compare.main()
    assert stopped.value.code == 2
    assert "no row of seconds in common" in capsys.readouterr().err


def test_every_benchmark_has_its_line():
    """In docs/benchmarks.md, and there is none that is gone."""
    page = (BENCHMARKS.parent / "docs" / "benchmarks.md").read_text()
    scripts = {path.name for path in BENCHMARKS.glob("*.py") if "def main(" in path.read_text()}
    scripts |= {path.name for path in BENCHMARKS.glob("*.sh")}
    named = set(re.findall(r"\b(\w+\.(?:py|sh))\b", page))
    assert scripts <= named
    assert {name for name in named if not name.startswith("test_")} <= scripts
