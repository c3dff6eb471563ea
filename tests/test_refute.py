"""The sequential test of a claimed accuracy, valid at every look, and `stcli refute`, which uses it."""

import hashlib
import json
import math
import shutil
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import product
from math import comb
from pathlib import Path

import numpy as np
import pytest
from harness import NAMES, load
from hypothesis import given
from hypothesis import strategies as st
from small import _folders, stcli, words
from test_cli_evaluate import sound
from test_training import PressesCtrlC

import stcore
from stcore.audit import Finding
from stcore.autoattack import stages
from stcore.data import load_digits
from stcore.errors import UsageError
from stcore.evidence import read, write
from stcore.evidence.ladder import Rung, doubts, ladder
from stcore.evidence.sampling import REFUTED, SUPPORTED, UNDECIDED, Claim, Standing, order
from stcore.evidence.sequential import (
    is_refuted,
    is_supported,
    log_evidence,
    lower_bound,
    upper_bound,
)

torch = pytest.importorskip("torch")

SIZES = st.integers(2, 25).flatmap(
    lambda total: st.integers(0, total).flatmap(
        lambda seen: st.tuples(st.just(total), st.just(seen), st.integers(0, seen))
    )
)
"""(total, seen, standing)"""

# The test


def by_definition(total, seen, standing, k, share=0.1):
    """E of the module's docstring, term by term, with binomial coefficients as exact fractions."""

    def likelihood(standing_in_all):
        fallen = seen - standing
        return Fraction(comb(standing_in_all, standing) * comb(total - standing_in_all, fallen), comb(total, seen))

    weights = [math.exp(-(k - j) / (share * total)) for j in range(k)]
    above = sum(w * float(likelihood(j)) for j, w in enumerate(weights)) / sum(weights)
    below = float(max(likelihood(other) for other in range(k, total + 1)))
    return above, below


@given(SIZES)
def test_the_evidence_is_its_definition(sizes):
    total, seen, standing = sizes
    found = log_evidence(total, seen, standing)
    assert found[0] == -math.inf
    for k in range(1, total + 1):
        above, below = by_definition(total, seen, standing, k)
        if below == 0:
            assert found[k] == math.inf
        elif above == 0:
            assert found[k] == -math.inf
        else:
            assert found[k] == pytest.approx(math.log(above / below), abs=1e-8)


@given(SIZES, st.floats(0.5, 0.999))
def test_an_image_that_is_not_known_may_count_as_standing(sizes, confidence):
    """One more that stands never makes the evidence larger, and the bounds hold what was seen."""
    total, seen, standing = sizes
    if standing < seen:
        assert (log_evidence(total, seen, standing + 1) <= log_evidence(total, seen, standing) + 1e-9).all()
    high, low = upper_bound(total, seen, standing, confidence), lower_bound(total, seen, standing, confidence)
    assert standing <= high <= total
    assert 0 <= low <= total - (seen - standing)
    assert low <= high
    if seen == total:
        assert low == high == standing


@pytest.mark.parametrize(("total", "stand"), [(6, 4), (7, 3)])
def test_the_expected_evidence_against_a_truth_is_at_most_one_at_every_look(total, stand):
    """Over all orders of a small population, exactly: E is a supermartingale if the claim holds."""
    for seen in range(total + 1):
        mean = 0.0
        for standing in range(max(0, seen - (total - stand)), min(seen, stand) + 1):
            share = comb(stand, standing) * comb(total - stand, seen - standing) / comb(total, seen)
            mean += share * math.exp(log_evidence(total, seen, standing)[stand])
        assert mean <= 1 + 1e-12


def simulated(total, stand, claimed, orders, confidence=0.95, seed=0, test=is_refuted):
    """How often a claim is rejected at any of all looks, and after how many images."""
    limit = -math.log1p(-confidence)
    table = {}
    rejected, looks = 0, []
    rng = np.random.default_rng(seed)
    for _ in range(orders):
        outcome = rng.permutation(np.arange(total) < stand)
        standing = np.cumsum(outcome)
        for seen in range(1, total + 1):
            key = seen, int(standing[seen - 1])
            if key not in table:
                table[key] = log_evidence(total, *key)[claimed] >= limit
            if table[key]:
                rejected += 1
                looks.append(seen)
                break
    return rejected / orders, looks


@pytest.mark.parametrize(("total", "stand"), [(200, 100), (200, 20), (200, 190), (50, 30)])
def test_a_claim_that_holds_is_wrongly_refuted_in_at_most_one_of_twenty_orders(total, stand):
    """At its edge, where it just holds, with a look after every image. 400 orders: 5 % within four deviations."""
    share, _ = simulated(total, stand, stand, orders=400)
    assert share <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / 400) * (total < 100)
    assert simulated(total, stand, max(stand - total // 20, 1), orders=100)[0] <= 0.03


def test_ten_points_too_many_are_found_in_a_tenth_of_a_large_set():
    share, looks = simulated(3000, 1500, 1800, orders=40)
    assert share == 1
    assert np.median(looks) <= 300


def test_support_is_the_same_test_of_those_that_fall():
    assert is_supported(100, 100, 60, 60, 0.95)
    assert not is_supported(100, 100, 59, 60, 0.95)
    assert is_supported(1000, 300, 290, 900, 0.95)
    assert not is_supported(1000, 300, 270, 900, 0.95)
    for seen, stood in product((0, 50, 100), (0, 20, 50)):
        if stood <= seen:
            lowest = lower_bound(100, seen, stood, 0.95)
            assert is_supported(100, seen, stood, lowest, 0.95)
            assert not is_supported(100, seen, stood, lowest + 1, 0.95)


# Claims


@pytest.mark.parametrize(
    ("text", "accuracy", "epsilon"),
    [("0.52@8/255", 0.52, 8 / 255), (".5@0.1", 0.5, 0.1), ("1@0", 1.0, 0.0), (" 0.5591@0.2 ", 0.5591, 0.2)],
)
def test_a_claim_is_an_accuracy_at_a_radius(text, accuracy, epsilon):
    claim = Claim.parse(text, norm="l2", confidence=0.9)
    assert (claim.accuracy, claim.epsilon, claim.norm, claim.confidence) == (accuracy, epsilon, "l2", 0.9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("52@8/255", r"an accuracy in \(0, 1\], such as 0.52; received 52"),
        ("0.52", "expected ACCURACY@EPSILON such as 0.52@8/255; received '0.52'"),
        ("52%@8/255", "expected ACCURACY@EPSILON"),
        ("0.5@8/0", "expected ACCURACY@EPSILON"),
        ("-0.5@0.1", "expected ACCURACY@EPSILON"),
        ("nan@0.1", "expected ACCURACY@EPSILON"),
        ("0@0.1", "expected an accuracy above the tolerance"),
        ("0.01@0.1", "expected an accuracy above the tolerance"),
    ],
)
def test_claims_that_are_none(text, message):
    with pytest.raises(UsageError, match=message):
        Claim.parse(text)


def test_rounding_of_a_claim_is_not_refuted():
    """194 of 347 is 55.9077 %, and is printed as 55.91."""
    claim = Claim(0.5591, 0.2)
    assert claim.least(347) == 194
    assert Standing(claim, 347, 347, 347 - 194, 194).verdict == SUPPORTED
    assert Standing(claim, 347, 347, 347 - 193, 193).verdict == REFUTED


def test_what_is_in_between_counts_for_neither_verdict():
    claim = Claim(0.6, 0.1)
    assert Standing(claim, 1000, 300, broken=20, stood=270).verdict == SUPPORTED
    assert Standing(claim, 1000, 300, broken=20, stood=100).verdict == UNDECIDED
    assert Standing(claim, 1000, 300, broken=200, stood=0).verdict == REFUTED
    assert "not proved" in Standing(claim, 1000, 300, 20, 270).sentence
    low, high = Standing(claim, 1000, 300, broken=20, stood=100).bounds
    assert low < 0.33 < 0.93 < high


# The order


def test_the_order_is_a_permutation_that_seed_weights_and_data_determine():
    positions = np.arange(100, 400)
    one = order(positions, 0, "w", "d")
    assert sorted(one.tolist()) == positions.tolist()
    np.testing.assert_array_equal(one, order(positions[::-1], 0, "w", "d"))
    keys = {int(p): hashlib.sha256(f"0 w d {p}".encode()).hexdigest() for p in positions}
    assert one.tolist() == sorted(keys, key=keys.get)
    others = [order(positions, 1, "w", "d"), order(positions, 0, "v", "d"), order(positions, 0, "w", "e")]
    for other in others:
        assert (one != other).mean() > 0.9


def test_the_order_is_as_random_as_it_must_be():
    """Of 2000 seeds, each of 10 images is first equally often: within five standard deviations."""
    first = [order(np.arange(10), seed, "w", "d")[0] for seed in range(2000)]
    counts = np.bincount(first, minlength=10)
    assert np.abs(counts - 200).max() < 5 * math.sqrt(200 * 0.9)


# The ladder


def warn(*names):
    return doubts([Finding(name, "warn", "", "") for name in names] + [Finding("several classes", "pass", "", "")])


def test_the_ladder_follows_the_audit():
    def names(*warned):
        return [rung.name for rung in ladder("linf", 0.1, 10, warn(*warned))]

    standard = ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert names() == ["fast apgd-ce", "fast apgd-t", *standard]
    assert names("no gradients (Square)") == ["short square", "fast apgd-ce", "fast apgd-t", *standard]
    assert names("another loss") == ["fast apgd-t", "fast apgd-ce", *standard]
    assert names("same answer each time", "transfer") == ["apgd-ce", "apgd-dlr", "square"]
    assert all(rung.stage.samples == 20 for rung in ladder("linf", 0.1, 10, warn("same answer each time")))
    l1 = ladder("l1", 12, 10)
    assert len({(rung.stage.attack, rung.stage.restarts) for rung in l1}) == len(l1)


# The command

CLAIM = {"claim": "0.9@0.05", "dataset": "digits", "batch_size": 64}


@pytest.fixture
def short(monkeypatch):
    """A ladder whose expensive part is 60 queries of Square in place of 100 + 900 + 900 + 5000 steps an image."""

    def short(norm, epsilon, classes, warned=()):
        *_, last = stages("custom", norm, epsilon, classes, attacks=("square",), queries=60)
        return (*ladder(norm, epsilon, classes, warned)[:2], Rung("square", last, False))

    monkeypatch.setattr("stcore.evidence.refuting.ladder", short)


def refute(out, *args, run=None, **settings):
    return stcli("refute", run or sound(), *args, *words({**CLAIM, "out": out, **settings}))


@pytest.mark.parametrize(
    "backend",  # half a minute of tracing the audit's and the ladder's attacks
    [pytest.param(name, marks=pytest.mark.slow) if name == "keras" else name for name in NAMES],
)
def test_a_claim_that_does_not_hold_is_refuted_and_the_refutation_replays(tmp_path, backend):
    load(backend)
    said = refute(tmp_path / "it", backend=backend, subset=64)
    assert (said.code, said.err) == (0, "")
    assert "refuted at 95 %: the robust accuracy is at most " in said.out
    evidence = read(tmp_path / "it")
    settings = evidence.header["refutation"]
    assert settings["verdict"] == REFUTED
    assert len(evidence.evaluated) < 64
    assert not evidence.state
    other = NAMES[1 - NAMES.index(backend)]
    load(other)
    found = stcore.replay(tmp_path / "it", sound(), backend=other)
    assert found.complete
    assert found.restatement.verdict == REFUTED
    assert found.restatement.broken == found.confirmed


def test_a_claim_that_holds_is_supported_against_these_attacks_and_no_replay_confirms_that(tmp_path, short):
    claim = {"claim": "0.5@0.001", "subset": 24, "tolerance": 0.2}
    said = refute(tmp_path / "it", **claim)
    assert said.code == 0, said.err
    assert "supported at 95 %, against these attacks alone, and not proved" in said.out
    evidence = read(tmp_path / "it")
    assert evidence.rung.max() == len(evidence.header["refutation"]["ladder"])
    found = stcore.replay(tmp_path / "it", sound(), backend="torch")
    assert found.complete
    assert any("on which “supported” rests" in note for note in found.not_checked)


def test_the_images_come_in_the_order_of_the_seed(tmp_path):
    seen = {}
    for seed in (0, 1):
        assert refute(tmp_path / str(seed), seed=seed, subset=64).code == 0
        evidence = read(tmp_path / str(seed))
        network, data = evidence.header["network"], evidence.header["data"]
        expected = order(np.arange(64), seed, network["weights"], data["sha256"])
        seen[seed] = evidence.evaluated.tolist()
        assert seen[seed] == expected[: len(seen[seed])].tolist()
    assert seen[0] != seen[1]


@cache
def refuted():
    """The file of a refuted claim, to read."""
    file = Path(_folders.name) / "refuted.stev"
    assert refute(file, subset=64).code == 0
    return file


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["refutation"].update(seed=7),
        lambda header: header["refutation"].update(verdict=SUPPORTED),
        lambda header: header["refutation"].update(accuracy=0.1),
        lambda header: header["refutation"].update(subset="0:70"),
    ],
    ids=["seed", "verdict", "claim", "population"],
)
def test_a_forged_order_or_verdict_is_not_confirmed(tmp_path, change):
    evidence = read(refuted())
    header = json.loads(json.dumps(evidence.header))
    change(header)
    write(tmp_path / "it", replace(evidence, header=header))
    said = stcli("replay", tmp_path / "it", "--weights", sound(), "--backend", "torch")
    assert said.code == 6
    assert "the order of the images, or the verdict, is not the recorded one" in said.err


LATE = {"claim": "0.25@0.05", "subset": 48, "tolerance": 0.01}
"""Close to what withstands, so that the expensive attacks are needed."""


def test_ctrl_c_and_the_same_command_again_end_with_the_same_file(tmp_path, monkeypatch, short):
    whole = refute(tmp_path / "whole", **LATE)
    assert whole.code == 0, whole.err
    for label, at in (("audit", 3), ("refute", 2), ("refute", 3)):
        pressing = PressesCtrlC(label, at)
        with monkeypatch.context() as patch:
            patch.setattr("stcore.cli.refute.make_progress", lambda _, pressing=pressing: pressing)
            said = refute(tmp_path / "it", **LATE)
        assert said.code == 130, said.out + said.err
        assert f"interrupted: kept in {tmp_path / 'it'}; run the same command again to resume" in said.out
    assert read(tmp_path / "it").header["refutation"]["verdict"] == UNDECIDED
    said = refute(tmp_path / "it", **LATE)
    assert said.code == 0, said.err
    assert f"resumes: {tmp_path / 'it'}, " in said.out
    assert (tmp_path / "it").read_bytes() == (tmp_path / "whole").read_bytes()
    again = refute(tmp_path / "it", **LATE)
    assert again.code == 0
    assert (tmp_path / "it").read_bytes() == (tmp_path / "whole").read_bytes()


def test_when_the_time_is_over_what_is_known_is_said(tmp_path):
    said = refute(tmp_path / "it", hours=0)
    assert said.code == 0
    assert "undecided: after 0 of " in said.out


def test_the_file_of_another_claim_is_not_continued(tmp_path):
    shutil.copy(refuted(), tmp_path / "it")
    before = (tmp_path / "it").read_bytes()
    for settings in ({"claim": "0.8@0.05"}, {"claim": "0.9@0.04"}, {"seed": 1}, {"confidence": 0.9}):
        said = refute(tmp_path / "it", **{"subset": 64, **settings})
        assert said.code == 2
        assert "out: expected a new file, or one of this claim, network and data" in said.err
    assert (tmp_path / "it").read_bytes() == before
    (tmp_path / "other").write_text("precious")
    assert refute(tmp_path / "other", subset=64).code == 3
    assert (tmp_path / "other").read_text() == "precious"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"claim": "0.5"}, "claim: expected ACCURACY@EPSILON"),
        ({"confidence": 1}, "confidence: expected a number in [0.5, 1); received 1.0"),
        ({"hours": -1}, "hours: expected a number of at least 0; received -1.0"),
        ({"norm": "l7"}, "expected one of linf, l2, l1, l0; received 'l7'"),
        ({"subset": "a"}, "subset: expected N or A:B within the 347 test images"),
        ({"checkpoint": "worst"}, "checkpoint: expected one of best, last"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, settings, message):
    said = refute(tmp_path / "it", **settings)
    assert said.code == 2
    assert message in said.err
    assert not (tmp_path / "it").exists()


def test_a_network_that_answers_at_random_meets_the_attacks_for_it(tmp_path):
    """Its audit warns; the ladder is AutoAttack's for random networks, and the file says so."""
    from stcore.base.progress import Silent
    from stcore.evidence.refuting import Refutation

    test = load_digits().test.head(24)

    class Noisy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = stcore.load(sound(), backend="torch").model
            self.generator = torch.Generator().manual_seed(0)

        def forward(self, x):
            return self.model(x + 0.05 * torch.randn(x.shape, generator=self.generator))

    identity = {
        "seed": 0, "weights": "w", "data": test.fingerprint(), "dtype": "float32", "dataset": "digits",
        "model": "noisy", "subset": None,
    }  # fmt: skip
    work = Refutation(
        stcore.make_classifier(Noisy().eval()), test, np.arange(24), Claim(0.98, 0.2), identity, batch_size=64
    )
    assert work.run(Silent()).verdict == REFUTED
    assert "same answer each time" in work.warned
    assert [rung.name for rung in work.ladder] == ["apgd-ce", "apgd-dlr", "square"]
