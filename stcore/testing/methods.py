"""The contract of a training method, piece by piece, and `check_method`, which holds a method to all of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from stcore.api.steps import train_step
from stcore.cli.options import TrainOptions
from stcore.cli.own_settings import with_settings
from stcore.core.objective import Objective, Passes, PerExample, bounds_of
from stcore.methods import described, make_objective
from stcore.protocols import Array, Mode
from stcore.testing.backends import STRICT, Backend, assert_close, draw, installed, load, problem, worst
from stcore.testing.watch import Watch

EXAMPLES, L2_EXAMPLES, GRADIENT, TWO_STEPS = 1e-12, 1e-9, 1e-9, 1e-8
"""How far two backends may be apart in float64: examples by the norm of their ball; the others relatively."""
EPOCHS = (1, 2, 3, 10, 100, 1000)
"""The epochs whose phases are tried."""


def check_method(objective: Any, *, in_ball: bool = True) -> None:
    """Holds a method to its contract. Raises AssertionError that says what was expected.

    objective: its settings as an object, such as `MyConfig()`; a short search such as `MyConfig(steps=3)` is
        quicker. A class is tried with its defaults.
    in_ball: whether all examples stay in the ball of `epsilon` and in `bounds`; False for a method that means to
        leave them, such as N-FGSM.

    Settings: a frozen dataclass, each field with a default and an option of the command line. Phases: whole
    numbers that depend on the epoch alone. Examples: the same for the same noise, in the ball. Losses and metrics:
    one per example, finite. Weights, modes and the batch stay unchanged. Passes: those of `passes`. Examples,
    losses, gradients and steps: equal on all installed backends and, by finite differences, on the strict one.
    """
    objective = objective() if isinstance(objective, type) else objective
    check_settings(objective)
    phases = check_phases(objective)
    backends = installed()
    for backend in backends:
        passes = [check_step(backend, objective, phase, in_ball=in_ball) for phase in phases]
        most = max(passes, key=lambda each: each.units)
        _expect(
            most == objective.passes, f"passes = {most}, which were counted on {backend.name}", objective.passes
        )
        check_update(backend, objective)
    for phase in phases:
        for one, other in combinations(backends, 2):
            check_same_examples(one, other, objective, phase)
            check_same_gradients(one, other, objective, phase)
        for backend in backends:
            check_protocol_suffices(backend, objective, phase)


def check_settings(objective: Any) -> None:
    """The settings make the method again, and each has an option."""
    name, settings = described(objective)  # raises UsageError for what is no method
    again = make_objective(name, settings)
    _expect(again == objective, f"equal settings to make equal methods, {objective}", again)
    options = {field.name for field in dataclasses.fields(with_settings(TrainOptions, name))}
    missing = set(settings) - options - {"bounds"}
    _expect(not missing, "an option for each setting", f"none for {', '.join(sorted(missing))}")
    for law in objective.noise_laws:
        _expect(law in ("normal", "uniform", "ball"), "noise laws among normal, uniform, ball", law)
    _expect(isinstance(objective.noise_laws, tuple), "noise_laws to be a tuple", objective.noise_laws)
    _expect(isinstance(objective.passes, Passes), "passes to be a stcore.core.objective.Passes", objective.passes)


def check_phases(objective: Objective) -> list[int]:
    """The phases over the epochs, each once."""
    phases = [objective.phase(epoch) for epoch in EPOCHS]
    for phase in phases:
        _expect(type(phase) is int and phase >= 0, "phase(epoch) to be a whole number of at least 0", phase)
    _expect(
        phases == [objective.phase(epoch) for epoch in EPOCHS], "phases that depend on the epoch alone", phases
    )
    return list(dict.fromkeys(phases))


def check_step(backend: Backend, objective: Objective, phase: int = 0, *, in_ball: bool = True) -> Passes:
    """What a step finds and loses in a phase; returns the passes that it made."""
    where, given = f"in phase {phase} on {backend.name}", problem()
    model, batch = backend.build(), backend.batch(given)
    classifier = backend.classifier(model)
    before, statistics, modes = _weights(backend, model), backend.statistics(model), _modes(model)
    drawn = tuple(backend.images(one) for one in draw(objective.noise_laws, given.x.shape))
    watch = Watch(classifier)
    examples = objective.find(watch, batch.x, batch.y, drawn, phase)
    searched = list(watch.forwards)
    arrays = to_arrays(backend, examples)
    _same(_weights(backend, model), before, f"find to change no weight {where}")
    if Mode.TRAIN not in {each.mode for each in searched}:
        _same(backend.statistics(model), statistics, f"a search without TRAIN to move no statistics {where}")
    _expect(not any(each.dropout for each in searched), f"dropout off in find {where}", "dropout=True")
    again = to_arrays(backend, objective.find(classifier, batch.x, batch.y, drawn, phase))
    for one, other in zip(arrays, again, strict=True):
        _expect(np.array_equal(one, other), f"the same examples from the same noise {where}", "others")
    if in_ball:
        check_ball(objective, given.x, arrays, where)

    result = objective.losses(watch, batch.x, batch.y, examples, phase)
    outer = watch.forwards[len(searched) :]
    _expect(isinstance(result, PerExample), f"losses to return a stcore.core.objective.PerExample {where}", result)
    for name, values in {"losses": result.losses, **result.metrics}.items():
        array = backend.array(values)
        _expect(array.shape == given.y.shape, f"{name}: one number per example, (B,), {where}", array.shape)
        _expect(bool(np.isfinite(array).all()), f"{name}: finite numbers {where}", array)
    _expect(all(each.dropout for each in outer), f"dropout=True in each forward of losses {where}", "False")
    _expect(any(each.mode is Mode.TRAIN for each in outer), f"a forward of losses in Mode.TRAIN {where}", "none")
    _same(_weights(backend, model), before, f"losses to change no weight {where}")
    _expect(_modes(model) == modes, f"the network's modes as they were {where}", "others")
    for name, here, then in (("x", batch.x, given.x), ("y", batch.y, given.y)):
        array = backend.nhwc(here) if name == "x" else backend.array(here)
        _expect(np.array_equal(array, then), f"{name} as it was {where}", "a change")
    return Passes(len(watch.forwards), watch.backwards, len(outer))


def check_ball(objective: Any, x: Array, arrays: Sequence[Array], where: str) -> None:
    """Examples are in the ball of ε and in range, if the method has such settings."""
    epsilon, norm = getattr(objective, "epsilon", None), getattr(objective, "norm", "linf")
    low, high = bounds_of(objective)
    for example in (array for array in arrays if array.shape == x.shape):
        offset = np.abs(example - x)
        size = offset.max() if norm == "linf" else np.sqrt((offset**2).sum((1, 2, 3))).max()
        if epsilon is not None:
            _expect(size <= epsilon * (1 + 1e-9) + 1e-12, f"examples within ε = {epsilon:g} {where}", f"{size:g}")
        _expect(low <= example.min() and example.max() <= high, f"pixels in [{low:g}, {high:g}] {where}", "others")


def check_update(backend: Backend, objective: Objective) -> None:
    """A training step changes the weights, and leaves them finite."""
    before, after = trained(backend, objective, steps=0), trained(backend, objective, steps=1)
    _expect(
        any(worst(after[name], before[name]) > 0 for name in after), "a step to change the weights", "no change"
    )
    finite = all(np.isfinite(array).all() for array in after.values())
    _expect(finite, f"finite weights after a step on {backend.name}", "others")


def check_same_examples(one: Backend, other: Backend, objective: Objective, phase: int = 0) -> None:
    """Two backends find the same examples."""
    given = problem()
    ours, theirs = (to_arrays(it, found(it, it.build(), objective, given, phase)) for it in (one, other))
    tolerance = EXAMPLES if getattr(objective, "norm", "linf") == "linf" else L2_EXAMPLES
    for here, there in zip(ours, theirs, strict=True):
        gap = np.abs(here - there).max()
        _expect(gap <= tolerance, f"the same examples on {one.name} and {other.name}, phase {phase}", f"{gap:.1e}")


def check_same_gradients(
    one: Backend, other: Backend, objective: Objective, phase: int = 0, net: str = "tiny-smooth"
) -> None:
    """Two backends have the same losses, metrics and weight gradients on the same examples."""
    given, results = problem(), []
    examples = found(one, one.build(net), objective, given, phase)
    arrays = to_arrays(one, examples)
    for backend in (one, other):
        learner = backend.learner(backend.build(net), lr=1.0, momentum=0.0, weight_decay=0.0)
        native = to_native(backend, examples, arrays)
        results.append(gradients(learner, objective, backend.batch(given), native, phase))
    ours, theirs = results
    there, here = ({"loss": it.loss, **it.metrics} for it in (theirs, ours))
    assert_close(there, here, GRADIENT)
    assert_close(theirs.by_name, ours.by_name, GRADIENT)


def check_same_steps(one: Backend, other: Backend, objective: Objective) -> None:
    """Two backends make the same two training steps."""
    assert_close(trained(other, objective), trained(one, objective), TWO_STEPS)


def check_protocol_suffices(backend: Backend, objective: Any, phase: int = 0) -> None:
    """The backend and the strict one, whose gradients are finite differences, agree on everything of a step."""
    tolerance = 1e-9 if getattr(objective, "norm", "linf") == "linf" else 1e-6
    assert_close(small_step(backend, objective, phase), small_step(load(STRICT), objective, phase), tolerance)


@cache
def small_step(backend: Backend, objective: Any, phase: int = 0) -> dict[str, Array]:
    """On 3×3 pixels, after two steps at most: examples, the losses and metrics on them, statistics after them."""
    if hasattr(objective, "step_size"):
        objective = dataclasses.replace(objective, steps=min(objective.steps, 2))
    given, model = problem(2, 3), backend.build(side=3)
    examples = found(backend, model, objective, given, phase)
    batch = backend.batch(given)
    result = objective.losses(backend.classifier(model), batch.x, batch.y, examples, phase)
    arrays = {f"example {i}": array for i, array in enumerate(to_arrays(backend, examples))}
    numbers = {"loss": result.losses, **result.metrics}
    return arrays | {name: backend.array(value) for name, value in numbers.items()} | backend.statistics(model)


# --- The parts of a step ---


def found(backend: Backend, model: Any, objective: Objective, given: Any, phase: int = 0, seed: int = 0) -> Any:
    """What the method finds: the native examples as it made them."""
    batch, classifier = backend.batch(given), backend.classifier(model)
    drawn = tuple(backend.images(one) for one in draw(objective.noise_laws, given.x.shape, seed))
    return classifier.ops.unrecorded(lambda: objective.find(classifier, batch.x, batch.y, drawn, phase))


def to_arrays(backend: Backend, examples: Any) -> list[Array]:
    """Images as (B, H, W, C), and what is counted of each example as (B,)."""
    leaves = list(_leaves(examples))
    return [backend.nhwc(e) if a.ndim == 4 else a for e, a in zip(leaves, map(backend.array, leaves), strict=True)]


def _leaves(examples: Any) -> Iterator[Any]:
    """The tensors of nested tuples."""
    if isinstance(examples, tuple):
        for each in examples:
            yield from _leaves(each)
    elif examples is not None:
        yield examples


def to_native(backend: Backend, examples: Any, arrays: Sequence[Array]) -> Any:
    """The same structure in this backend's tensors."""
    left = iter(arrays)

    def native(part: Any) -> Any:
        if isinstance(part, tuple):
            parts = map(native, part)
            return type(part)(*parts) if hasattr(part, "_fields") else tuple(parts)
        if part is None:
            return None
        array = next(left)
        return backend.images(array) if array.ndim == 4 else backend.tensor(array)

    return native(examples)


class Gradients(NamedTuple):
    """The mean loss and metrics of a batch, and the gradients of the loss by weight."""

    loss: float
    metrics: Mapping[str, float]
    by_name: Mapping[str, Array]


def gradients(learner: Any, objective: Objective, batch: Any, examples: Any, phase: int = 0) -> Gradients:
    """The weight gradients of the mean loss by canonical name.

    Read off one step of plain SGD at rate 1, so the learner must have been made for that.
    """
    ops, before = learner.ops, learner.weights()

    def mean_loss() -> tuple[Any, dict[str, Any]]:
        per_example = objective.losses(learner, batch.x, batch.y, examples, phase)
        return ops.mean(per_example.losses), {name: ops.mean(it) for name, it in per_example.metrics.items()}

    (loss, metrics), raw = learner.value_and_grad(mean_loss)
    learner.apply_gradients(raw)
    after = learner.weights()
    by_name = {name: before[name] - after[name] for name in before if ".running_" not in name}
    host = ops.to_numpy
    return Gradients(float(host(loss)), {name: float(host(it)) for name, it in metrics.items()}, by_name)


def trained(backend: Backend, objective: Objective, net: str = "tiny", steps: int = 2) -> dict[str, Array]:
    """The weights after some steps of the first epoch, with momentum and weight decay."""
    learner = backend.learner(backend.build(net), lr=0.1, momentum=0.9, weight_decay=5e-4)
    for step in range(steps):
        given = problem(seed=step)
        batch = backend.batch(given)
        drawn = tuple(backend.images(one) for one in draw(objective.noise_laws, given.x.shape, step))
        train_step(learner, objective, batch.x, batch.y, noise=drawn, phase=objective.phase(1))
    return dict(learner.weights())


def _weights(backend: Backend, model: Any) -> dict[str, Array]:
    from stcore.models import export_weights

    return {name: np.array(it) for name, it in export_weights(model).items() if ".running_" not in name}


def _modes(model: Any) -> list[bool]:
    """The training flags of a torch network's modules; Keras has none."""
    return [module.training for module in model.modules()] if hasattr(model, "modules") else []


def _same(one: Mapping[str, Array], other: Mapping[str, Array], expected: str) -> None:
    changed = [name for name in other if not np.array_equal(one[name], other[name])]
    _expect(not changed, expected, f"another {', '.join(changed)}")


def _expect(holds: bool, expected: str, received: object) -> None:
    assert holds, f"expected {expected}; received {received}"
