"""A search that grows: which number of steps is in force, and that a step is the method's own with it."""

import dataclasses

import numpy as np
import pytest
from harness import problem
from small import EAGER, Run, train

from stcore import GairatConfig, SqueezeConfig, StandardConfig, TradesConfig
from stcore.core.objective import training_step
from stcore.errors import UsageError
from stcore.methods.step_curriculum import StepCurriculum, with_step_curriculum
from stcore.runs.plan import make_plan


def steps_by_epoch(early, epochs, steps=10):
    objective = with_step_curriculum(TradesConfig(steps=steps), early, epochs)
    return [objective._active(objective.phase(epoch))[0].steps for epoch in range(1, epochs + 1)]


def test_each_stretch_has_its_number_of_steps():
    assert steps_by_epoch(("3@0.3", "5@0.6"), 10) == [3, 3, 3, 5, 5, 5, 10, 10, 10, 10]
    assert steps_by_epoch(("5@1",), 3) == [5, 5, 5]
    assert steps_by_epoch(("5@0.01",), 3) == [10, 10, 10]  # shorter than an epoch
    objective = TradesConfig()
    assert with_step_curriculum(objective, (), 3) is objective


def test_a_methods_own_phase_stays():
    objective = with_step_curriculum(GairatConfig(begin_epoch=3), ("2@0.75",), 4)
    own = [objective._active(objective.phase(epoch)) for epoch in (1, 2, 3, 4)]
    assert [(config.steps, phase) for config, phase in own] == [(2, 0), (2, 0), (2, 1), (10, 1)]
    assert len({objective.phase(epoch) for epoch in (1, 2, 3, 4)}) == 3  # as many are traced


def test_it_costs_what_its_dearest_stage_does():
    objective = with_step_curriculum(SqueezeConfig(), ("20@0.5",), 4)
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
    objective = with_step_curriculum(config, ("2@0.5",), 2)
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
        (("5@1.5",), "shares of the epochs that rise"),
        (("5@0",), "shares of the epochs that rise"),
        (("5@nan",), "shares of the epochs that rise"),
    ],
)
def test_what_is_no_stretch_is_refused(early, reason):
    with pytest.raises(UsageError, match=reason):
        make_plan({"early_steps": early})


def test_a_method_that_searches_nothing_is_refused():
    with pytest.raises(UsageError, match="takes no inner steps"):
        with_step_curriculum(StandardConfig(), ("5@0.5",), 4)


def test_the_command_trains_so_on_each_backend(tmp_path, backend):
    settings = {"backend": backend.name, "epochs": 2, **EAGER, "steps": 2}
    said = train(tmp_path / "run", "--early-steps", "1@0.5", **settings)
    assert said.code == 0, said.err
    early, late = Run(tmp_path / "run", said).metrics
    assert early["divergence"] > 0
    assert late["divergence"] > 0
    plan = make_plan({"epochs": 2, "early_steps": ["1@0.5"]})
    assert isinstance(plan.objective, StepCurriculum)
    assert 'early_steps = ["1@0.5"]' in (tmp_path / "run" / "config.toml").read_text()
