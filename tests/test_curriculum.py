"""Settings that change over the epochs: which are in force, and that a step is the method's own with them."""

import dataclasses

import numpy as np
import pytest
from harness import assert_same, load, problem
from safetensors.numpy import load_file
from small import EAGER, Run, stcli, train

from stcore import AdversarialConfig, GairatConfig, SingleStepConfig, SqueezeConfig, StandardConfig, TradesConfig
from stcore.core.objective import training_step
from stcore.errors import UsageError
from stcore.methods.curriculum import Curriculum, with_curriculum
from stcore.runs.plan import make_plan


def steps_by_epoch(early, epochs, steps=10):
    objective = with_curriculum(TradesConfig(steps=steps), early, (), epochs)
    return [objective.active(objective.phase(epoch))[0].steps for epoch in range(1, epochs + 1)]


def test_each_stretch_has_its_number_of_steps():
    assert steps_by_epoch(("3@0.3", "5@0.6"), 10) == [3, 3, 3, 5, 5, 5, 10, 10, 10, 10]
    assert steps_by_epoch(("5@1",), 3) == [5, 5, 5]
    assert steps_by_epoch(("5@0.01",), 3) == [10, 10, 10]  # shorter than an epoch
    objective = TradesConfig()
    assert with_curriculum(objective, (), (), 3) is objective


def test_a_methods_own_phase_stays():
    objective = with_curriculum(GairatConfig(begin_epoch=3), ("2@0.75",), (), 4)
    own = [objective.active(objective.phase(epoch)) for epoch in (1, 2, 3, 4)]
    assert [(config.steps, phase) for config, phase in own] == [(2, 0), (2, 0), (2, 1), (10, 1)]
    assert len({objective.phase(epoch) for epoch in (1, 2, 3, 4)}) == 3  # as many are traced


def test_it_costs_what_its_dearest_stage_does():
    objective = with_curriculum(SqueezeConfig(), ("20@0.5",), (), 4)
    assert objective.passes == SqueezeConfig(steps=20).passes
    assert objective.noise_laws == SqueezeConfig().noise_laws


def test_an_early_step_is_the_step_of_that_many_inner_steps(backend):
    def weights(objective, phase):
        model = backend.build("tiny")
        batch = backend.batch(problem())
        learner = backend.learner(model, lr=0.1)
        training_step(learner, objective, batch.x, batch.y, batch.noise, phase)
        return learner.weights()

    config = SqueezeConfig(steps=4)
    objective = with_curriculum(config, ("2@0.5",), (), 2)
    for epoch, steps in ((1, 2), (2, 4)):
        expected = weights(dataclasses.replace(config, steps=steps), 0)
        for name, array in weights(objective, objective.phase(epoch)).items():
            np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize(
    ("early", "reason"),
    [
        (("5",), "expected STEPS@SHARE"),
        (("a@0.5",), "expected STEPS@SHARE"),
        (("-1@0.5",), "expected a whole number"),
        (("5@0.5", "6@0.5"), "shares of the epochs that rise"),
        (("5@1.5",), "a share of the epochs in"),
        (("5@0",), "a share of the epochs in"),
        (("5@nan",), "a share of the epochs in"),
    ],
)
def test_what_is_no_stretch_is_refused(early, reason):
    with pytest.raises(UsageError, match=reason):
        make_plan({"early_steps": early})


# --- Ramps ---


def by_epoch(objective, ramp, epochs, *names, early=()):
    ramped = with_curriculum(objective, early, ramp, epochs)
    stages = [ramped.active(ramped.phase(epoch))[0] for epoch in range(1, epochs + 1)]
    return [tuple(getattr(stage, name) for name in names) for stage in stages]


def test_a_setting_rises_and_a_step_size_with_its_radius():
    found = by_epoch(SqueezeConfig(epsilon=0.4, step_size=0.1), ("epsilon@0.5",), 8, "epsilon", "step_size")
    np.testing.assert_allclose(found, [(0.4 * share, 0.1 * share) for share in (0.25, 0.5, 0.75, 1, 1, 1, 1, 1)])
    both = by_epoch(SqueezeConfig(beta=6.0), ("beta@1", "epsilon@0.01"), 3, "beta", "epsilon", early=("2@0.6",))
    np.testing.assert_allclose(both, [(2, 8 / 255), (4, 8 / 255), (6, 8 / 255)])
    assert by_epoch(SqueezeConfig(), ("beta@1",), 3, "steps", early=("2@0.6",)) == [(2,), (2,), (10,)]


def test_a_single_steps_lengths_are_in_units_of_its_radius():
    config = SingleStepConfig(epsilon=0.2, consistency=100.0)
    found = by_epoch(
        config, ("epsilon@1", "consistency@1"), 2, "epsilon", "consistency", "step_scale", "start_scale"
    )
    assert found == [(0.1, 50.0, 1.0, 2.0), (0.2, 100.0, 1.0, 2.0)]


@pytest.mark.parametrize(
    ("objective", "word", "reason"),
    [
        (SqueezeConfig(), "epsilon", "expected SETTING@SHARE"),
        (SqueezeConfig(), "epsilon@x", "expected SETTING@SHARE"),
        (SqueezeConfig(), "epsilon@0", "a share of the epochs in"),
        (SqueezeConfig(), "epsilon@2", "a share of the epochs in"),
        (SqueezeConfig(), "steps@0.5", "that may rise, epsilon, beta; received 'steps'"),
        (AdversarialConfig(), "beta@0.5", "that may rise, epsilon; received 'beta'"),
        (StandardConfig(), "epsilon@0.5", "that may rise, none"),
    ],
)
def test_what_is_no_ramp_is_refused(objective, word, reason):
    with pytest.raises(UsageError, match=reason):
        with_curriculum(objective, (), (word,), 4)


@pytest.mark.parametrize("backend", ["torch", "keras"])
def test_a_ramp_that_is_interrupted_goes_on_bit_for_bit(tmp_path, backend):
    load(backend)
    settings = {"backend": backend, "epochs": 3, "method": "fast-st", **EAGER}
    ramp = ("--ramp", "epsilon@1", "beta@0.6")
    assert train(tmp_path / "whole", *ramp, **settings).code == 0
    stopped = train(tmp_path / "run", *ramp, "--max-hours", "1e-9", **settings)
    assert stopped.code == 130, stopped.err
    assert stcli("train", "--resume", tmp_path / "run").code == 0
    assert train(tmp_path / "plain", **settings).code == 0
    whole, resumed, plain = (load_file(tmp_path / name / "last.safetensors") for name in ("whole", "run", "plain"))
    assert_same(resumed, whole)
    assert any((plain[name] != array).any() for name, array in whole.items())


def test_a_method_that_searches_nothing_is_refused():
    with pytest.raises(UsageError, match="takes no inner steps"):
        with_curriculum(StandardConfig(), ("5@0.5",), (), 4)


def test_the_command_trains_so_on_each_backend(tmp_path, backend):
    settings = {"backend": backend.name, "epochs": 2, **EAGER, "steps": 2}
    said = train(tmp_path / "run", "--early-steps", "1@0.5", **settings)
    assert said.code == 0, said.err
    early, late = Run(tmp_path / "run", said).metrics
    assert early["divergence"] > 0
    assert late["divergence"] > 0
    plan = make_plan({"epochs": 2, "early_steps": ["1@0.5"]})
    assert isinstance(plan.objective, Curriculum)
    assert 'early_steps = ["1@0.5"]' in (tmp_path / "run" / "config.toml").read_text()
