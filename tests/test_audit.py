"""The audit: networks whose robust accuracy should not be believed are told from honest ones, on both backends."""

import pickle
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from harness import load, problem

import stcore
from stcore.attacks import PGD
from stcore.audit import CHECKS, QUICK, Finding, audit
from stcore.audit.gradients import _gradients
from stcore.audit.network import ignores_neighbours
from stcore.audit.strength import more_steps, other_loss_wins
from stcore.audit.subject import Subject
from stcore.core.losses import cross_entropy, difference_of_logits_ratio
from stcore.data.batches import Batch
from stcore.errors import AuditWarning, UsageError
from stcore.evaluation.evaluator import Evaluator

PAGE = Path(__file__).parents[1] / "docs" / "audit.md"
EPSILON = 0.1

# Networks: a linear one in closed form, honest, and what can be done to it


@cache
def digits():
    splits = stcore.data.load("digits")
    return splits.train, splits.test.head(100)


@cache
def ridge(penalty=100.0, scale=30.0):
    """Weights (64, 10) and biases (10,): least squares onto the classes, centred."""
    train, _ = digits()
    pixels = np.c_[train.images.reshape(-1, 64) / 255, np.ones(len(train))]
    normal = pixels.T @ pixels + penalty * np.eye(65)
    solved = scale * np.linalg.solve(normal, pixels.T @ (np.eye(10)[train.labels] - 0.1))
    return solved[:64], solved[64]


def linear(backend, weights, before=lambda x: x, after=lambda z: z):
    """A classifier of digits: linear, between what is done to the pixels before and to the logits after."""
    slopes, biases = weights
    if backend.name == "torch":
        import torch

        class Net(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.linear = torch.nn.Linear(64, 10)

            def forward(self, x):
                return after(self.linear(before(x).flatten(1)))

        model = Net()
        with torch.no_grad():
            model.linear.weight.copy_(torch.tensor(slopes.T))
            model.linear.bias.copy_(torch.tensor(biases))
    else:
        import keras

        x = keras.Input((8, 8, 1))
        dense = keras.layers.Dense(10)
        model = keras.Model(x, after(dense(keras.layers.Flatten()(before(x)))))
        dense.set_weights([slopes, biases])
    return stcore.make_classifier(model)


def operations(backend):
    """rounded, sine and softmax."""
    if backend.name == "torch":
        import torch

        return torch.round, torch.sin, lambda z: torch.softmax(z, 1)
    import keras

    return keras.ops.round, keras.ops.sin, keras.ops.softmax


def means(x):
    """Of the batch, for each pixel: what a norm without running statistics takes off."""
    if hasattr(x, "detach"):
        return x.mean(0, keepdim=True)
    import keras

    return keras.ops.mean(x, 0, keepdims=True)


def noise(backend):
    """Adds other noise in every forward, if the same in every run of the tests."""
    if backend.name == "torch":
        import torch

        generator = torch.Generator().manual_seed(0)
        return lambda x: x + 0.3 * torch.randn(x.shape, generator=generator)
    import keras

    class Noise(keras.layers.Layer):
        seeds = keras.random.SeedGenerator(0)

        def call(self, x):
            return x + 0.3 * keras.random.normal(keras.ops.shape(x), seed=self.seeds)

    return Noise()


def networks(backend):
    rounded, sine, softmax = operations(backend)
    slopes, biases = ridge()
    return {
        "honest": lambda: linear(backend, ridge()),
        "probabilities": lambda: linear(backend, ridge(), after=softmax),
        "randomised": lambda: linear(backend, ridge(), before=noise(backend)),
        "batch statistics": lambda: linear(backend, ridge(), before=lambda x: x + (x - means(x)) / 4),
        "quantised": lambda: linear(backend, ridge(), before=lambda x: rounded(8 * x) / 8),
        "saturated": lambda: linear(backend, ridge(scale=3e7)),
        "shattered": lambda: linear(backend, ridge(), before=lambda x: x + 0.02 * sine(5000 * x)),
        "collapsed": lambda: linear(backend, (0 * slopes, biases)),
        "diverged": lambda: linear(backend, (slopes, biases * np.nan)),
    }


NETWORKS = (
    "honest",
    "probabilities",
    "randomised",
    "batch statistics",
    "quantised",
    "saturated",
    "shattered",
    "collapsed",
    "diverged",
)


@cache
def examples_of_another(norm="linf", epsilon=EPSILON):
    """PGD's examples of another linear network, (100, 8, 8, 1)."""
    backend, (_, test) = load("torch"), digits()
    other = linear(backend, ridge(penalty=10.0))
    evaluator = Evaluator(other, {"pgd": PGD(epsilon, epsilon / 4, 100, norm=norm)})
    _, _, examples = evaluator.evaluate_batch(Batch(test.images, test.labels, np.arange(len(test))))
    return other.host_images(examples["pgd"])


@cache
def statuses(backend, name):
    """Status by check."""
    _, test = digits()
    findings = audit(
        networks(backend)[name](),
        test.images,
        test.labels,
        epsilon=EPSILON,
        transfer={"another": examples_of_another()},
    )
    assert [finding.check for finding in findings] == [check.name for check in CHECKS]
    return {finding.check: finding.status for finding in findings}


def warned(found):
    return {check for check, status in found.items() if status == "warn"}


BLIND = {"whole range as budget", "no gradients (Square)", "transfer"}
EXPECTED = {
    "honest": set(),
    "probabilities": {"logits, not probabilities", "graded logits"},
    "batch statistics": {"each image by itself"},
    "quantised": {"gradient of cross-entropy", "gradient of DLR", "gradient explains the loss", *BLIND},
    "saturated": {"gradient of cross-entropy", "whole range as budget", "another loss"},
    "shattered": {"gradient explains the loss", "no gradients (Square)", "transfer"},
    "collapsed": {"several classes"},
    "diverged": {"finite logits"},
}


@pytest.mark.parametrize(
    ("name", "framework"),
    [*((name, "torch") for name in EXPECTED), *((name, "keras") for name in ("honest", "shattered", "diverged"))],
)
def test_what_is_wrong_is_named_and_nothing_else(framework, name):
    """With Keras, which traces each question anew: a network all of whose answers pass, one that gradients do not
    see through, and one where they end early. The questions know the protocol alone."""
    backend = load(framework)
    load("torch")  # which makes the examples to transfer
    found = statuses(backend, name)
    assert warned(found) == EXPECTED[name]
    if name in ("collapsed", "diverged"):
        before = {"collapsed": 1, "diverged": 0}[name]
        assert list(found.values()) == ["pass"] * before + ["warn"] + ["skipped"] * (len(CHECKS) - 1 - before)
    else:
        assert "skipped" not in found.values()


def test_a_network_that_answers_at_random_is_told_by_its_second_answer(backend):
    load("torch")
    assert {"same answer each time", "no budget, no harm"} <= warned(statuses(backend, "randomised"))


def test_the_documented_table_is_what_the_audit_finds():
    backend = load("torch")
    columns = [statuses(backend, name) for name in NETWORKS]
    table = [f"| check | {' | '.join(NETWORKS)} |", "|---" * (len(NETWORKS) + 1) + "|"]
    for check in CHECKS:
        cells = (found[check.name].replace("warn", "**warn**").replace("skipped", "–") for found in columns)
        table.append(f"| {check.name} | {' | '.join(cells)} |")
    assert "\n".join(table) in PAGE.read_text(), "\n".join(table)


def test_images_of_one_class_tell_nothing_of_several():
    _, test = digits()
    zeros = np.flatnonzero(test.labels == 0)[:5]
    classifier = networks(load("torch"))["collapsed"]()
    (finding,) = [
        one
        for one in audit(classifier, test.images[zeros], test.labels[zeros], epsilon=EPSILON)
        if one.check == "several classes"
    ]
    assert finding.status == "skipped"


def test_the_page_names_every_check():
    text = PAGE.read_text()
    assert all(f"**{check.name}**" in text for check in CHECKS)


# What is measured


def subject(classifier, images=None, labels=None, **settings):
    _, test = digits()
    given = {"norm": "linf", "bounds": (0.0, 1.0), "seed": 0, "batch_size": 250, "queries": 20, "transfer": {}}
    images, labels = test.images if images is None else images, test.labels if labels is None else labels
    return Subject(classifier, images, labels, **given | {"epsilon": EPSILON} | settings)


def found(findings):
    return {finding.check: finding for finding in findings}


@pytest.mark.parametrize("loss", [cross_entropy, difference_of_logits_ratio])
def test_gradients_are_finite_differences(backend, loss):
    given, strict = problem(batch=3, side=4), load("strict")
    one, other = (
        _gradients(subject(b.classifier(b.build(side=4)), given.x, given.y), loss) for b in (backend, strict)
    )
    if backend.name == "keras":
        one = one.reshape(3, 4, 4, 3).transpose(0, 3, 1, 2).reshape(3, -1)
    np.testing.assert_allclose(one, other, atol=1e-8)
    assert np.abs(other).max() > 1e-3


@pytest.mark.parametrize("kind", ["flat", "l2", "floats in small batches"])
def test_an_honest_network_passes_whatever_its_input_and_norm(kind):
    backend, (_, test) = load("torch"), digits()
    images, settings = test.images, {"epsilon": EPSILON}
    classifier = networks(backend)["honest"]()
    if kind == "flat":
        classifier, images = stcore.make_classifier(classifier.model.linear), images.reshape(-1, 64)
    elif kind == "l2":
        settings = {"epsilon": 0.5, "norm": "l2", "transfer": {"a": examples_of_another("l2", 0.5)}}
    else:
        images, settings = (images / 255).astype(np.float32), settings | {"batch_size": 33}
    findings = found(audit(classifier, images, test.labels, **settings))
    skipped = {check for check, finding in findings.items() if finding.status == "skipped"}
    assert skipped == (set() if kind == "l2" else {"transfer"})
    assert {f.status for f in findings.values()} - {"skipped"} == {"pass"}
    if kind != "l2":  # nor do the counts depend on layout or batch size
        assert findings["more steps"].value == "66 of 100 withstand PGD-20, 66 PGD-100"


def test_log_probabilities_are_logits_too():
    import torch

    _, test = digits()
    classifier = linear(load("torch"), ridge(), after=lambda z: torch.log_softmax(z, 1))
    finding = found(audit(classifier, test.images, test.labels, epsilon=EPSILON))["logits, not probabilities"]
    assert (finding.status, finding.value) == ("pass", "log-probabilities, which are valid logits")


def test_logits_that_stop_being_numbers_under_attack_are_a_finding():
    import torch

    _, test = digits()
    images = 0.5 * test.images / 255
    classifier = linear(load("torch"), ridge(), before=lambda x: x + 0 * torch.log(1 - x))  # NaN where x is 1
    findings = found(audit(classifier, images, test.labels, epsilon=EPSILON))
    assert findings["whole range as budget"].value == "NaN or +∞"
    assert "divides by zero" in findings["whole range as budget"].meaning
    assert warned({check: finding.status for check, finding in findings.items()}) == {"whole range as budget"}


def test_noise_beats_gradients_that_point_the_wrong_way():
    _, test = digits()
    classifier = linear(load("torch"), ridge(), before=lambda x: 2 * x.detach() - x)
    findings = found(audit(classifier, test.images, test.labels, epsilon=0.4))
    expected = {"gradient explains the loss", "whole range as budget", "no gradients (Square)", "random noise"}
    assert warned({check: finding.status for check, finding in findings.items()}) == expected


def test_where_nothing_is_right_nothing_is_asked_of_it():
    _, test = digits()
    classifier = networks(load("torch"))["honest"]()
    wrong = subject(classifier).logits.argmin(axis=1)
    findings = audit(classifier, test.images, wrong, epsilon=EPSILON)
    assert [f.status for f in findings] == ["pass"] * 8 + ["skipped"] * 2 + ["pass"] * 2 + ["skipped"] * 5


class Counts:
    """A stand-in for a subject: so many of 100 images withstand PGD-20, PGD-100 and C&W-100."""

    images = range(100)
    tolerance = Subject.tolerance

    def __init__(self, few, many, margin):
        self._left = {(20, "cross_entropy"): few, (100, "cross_entropy"): many, (100, "margin"): margin}
        self.withstands_pgd = np.arange(100) < many
        self.withstands_gradients = np.arange(100) < margin

    def robust_under_pgd(self, steps, loss="cross_entropy"):
        return np.arange(100) < self._left[steps, loss]


@pytest.mark.parametrize(
    ("check", "counts", "good"),
    [
        (more_steps, (50, 48, 48), True),
        (more_steps, (50, 47, 47), False),
        (more_steps, (50, 53, 50), True),
        (other_loss_wins, (50, 50, 45), True),
        (other_loss_wins, (50, 50, 44), False),
    ],
)
def test_a_fall_is_a_warning_beyond_what_is_tolerated(check, counts, good):
    assert check(Counts(*counts)).good is good


@pytest.mark.parametrize(
    ("total", "share", "allowed"), [(10, 0.02, 2), (100, 0.02, 2), (500, 0.02, 10), (64, 0.05, 3.2)]
)
def test_two_images_or_a_share_of_all_are_tolerated(total, share, allowed):
    counts = Counts(1, 1, 1)
    counts.images = range(total)
    assert counts.tolerance(share) == allowed


# What is asked for


def test_transferred_examples_must_be_of_these_images_in_this_ball():
    _, test = digits()
    classifier = networks(load("torch"))["honest"]()
    near, far = (np.clip(test.images / 255 + offset, 0, 1) for offset in (EPSILON, 2 * EPSILON))
    audit_with = lambda points: audit(  # noqa: E731
        classifier, test.images, test.labels, epsilon=EPSILON, queries=1, transfer={"it": points}
    )
    assert found(audit_with(near))["transfer"].status == "pass"
    with pytest.raises(UsageError, match=r"transfer it: expected examples within ε = 0.1 .*; received one at 0.2"):
        audit_with(far)
    with pytest.raises(UsageError, match=r"transfer it: expected examples for the images, \(100, 8, 8, 1\)"):
        audit_with(near[:5])
    with pytest.raises(UsageError, match="norm: expected one of linf, l2; received 'l1'"):
        audit(classifier, test.images, test.labels, epsilon=1.0, norm="l1")


def test_the_cost_is_what_is_said_and_the_progress_tells_of_all_of_it():
    passes, told = [0], []

    def counted(x):
        def back(gradient):
            passes[0] += len(gradient)

        passes[0] += len(x)
        if x.requires_grad:
            x.register_hook(back)
        return x

    _, test = digits()
    classifier = linear(load("torch"), ridge(), before=counted)
    audit(classifier, test.images, test.labels, epsilon=EPSILON, queries=30, advance=told.append)
    square = 66 * 31  # images that withstand the gradient attacks
    assert 530 < (passes[0] - square) / len(test) <= 550
    assert told == [100] * len(CHECKS)
    passes[0] = 0
    audit(classifier, test.images, test.labels, epsilon=EPSILON, checks=QUICK)
    assert passes[0] == (13 + 7) * len(test)  # forwards and backward passes


def test_the_printed_table_explains_what_did_not_pass():
    from rich.console import Console

    from stcore.cli.console import findings_table

    console = Console(width=200)
    with console.capture() as capture:
        console.print(
            findings_table(
                "audit",
                [
                    Finding("one", "pass", "0 of 64", "All is well."),
                    Finding("two", "warn", "9 of 64", "Doubt it."),
                    Finding("three", "skipped", "", "No examples."),
                ],
            )
        )
    rows = [line.split("│")[1:-1] for line in capture.get().splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["one", "pass", "0 of 64", ""],
        ["two", "warn", "9 of 64", "Doubt it."],
        ["three", "skipped", "", "No examples."],
    ]


# What stcore.evaluate says of it


def pixels(backend, test):
    x = (test.images / 255).astype("float32")
    return x if backend.name == "keras" else x.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["honest", "batch statistics", "quantised", "saturated"])
def test_accuracies_carry_their_audit_and_warn_of_it(backend, name, recwarn):
    """What `stcli evaluate` says of a run, `stcore.evaluate` says too, as far as it takes no attack."""
    _, test = digits()
    model = networks(backend)[name]().model
    data = pixels(backend, test), test.labels
    found = stcore.evaluate(model, data, ["fgsm"], epsilon=EPSILON)
    assert list(found) == ["natural", "fgsm"]
    assert [one.check for one in found.audit] == [check.name for check in QUICK]
    expected = EXPECTED[name] & {check.name for check in QUICK}
    assert {one.check for one in found.doubts} == expected
    warned_of = [str(one.message) for one in recwarn if one.category is AuditWarning]
    assert len(warned_of) == len(expected)
    assert all(any(said.startswith(check) for said in warned_of) for check in expected)
    np.testing.assert_array_equal(found.records["label"], test.labels)
    for attack, accuracy in found.items():
        assert (found.records[f"predicted/{attack}"] == test.labels).sum() == accuracy.correct
    assert pickle.loads(pickle.dumps(found)).audit == found.audit


def test_a_network_that_detaches_its_input_is_not_called_robust(backend):
    """Its gradients are zero: FGSM moves nothing, and says so."""
    _, test = digits()
    if backend.name == "torch":
        cut = lambda x: x.detach() + 0 * x  # noqa: E731
    else:
        import keras

        cut = keras.layers.Lambda(lambda x: keras.ops.stop_gradient(x))
    model = linear(backend, ridge(), before=cut).model
    data = pixels(backend, test), test.labels
    with pytest.warns(AuditWarning, match="gradient of cross-entropy: .* images have none"):
        found = stcore.evaluate(model, data, ["fgsm"], epsilon=EPSILON)
    assert found["fgsm"] == found["natural"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stcore.evaluate(model, data, ["fgsm"], epsilon=EPSILON, audit=False).audit == ()


def test_the_whole_audit_is_that_of_the_command():
    backend = load("torch")
    _, test = digits()
    classifier = networks(backend)["honest"]()
    found = stcore.evaluate(
        classifier.model, (pixels(backend, test), test.labels), ["fgsm"], epsilon=EPSILON, audit=True
    )
    few = test.head(64)
    assert found.audit == tuple(audit(classifier, few.images, few.labels, epsilon=EPSILON))
    cascade = stcore.evaluate(
        classifier.model, (pixels(backend, few), few.labels), ["apgd-ce"], epsilon=EPSILON, audit=False
    )
    fell = cascade.records["apgd-ce/attack"] >= 0
    assert fell.sum() == cascade["natural"].correct - cascade["apgd-ce"].correct


def test_neighbours_count_whatever_the_batch_size():
    """One image a batch is no batch to be compared with; two and more are."""
    backend = load("torch")
    _, test = digits()
    for size in (1, 3, 100):
        of = Subject(
            networks(backend)["batch statistics"](),
            test.images,
            test.labels,
            epsilon=EPSILON,
            norm="linf",
            bounds=(0, 1),
            seed=0,
            batch_size=size,
            queries=1,
            transfer={},
        )
        assert not ignores_neighbours(of).good
