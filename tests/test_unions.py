"""Unions of threat models: an AND over records, in one evaluation or of several."""

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from harness import load
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from small import plan, stcli, words
from test_cli_evaluate import ON_EACH, _folders, evaluate, evaluated, sound
from test_training import PressesCtrlC

import stcore
from stcore import Union
from stcore.attacks import FGSM, PGD
from stcore.autoattack import AutoAttack
from stcore.base.files import read_arrays, read_json
from stcore.errors import UsageError
from stcore.evaluation.attack_names import attack_of, attacks_by_name, named_attacks, split
from stcore.evaluation.unions import joined, members_of, name_of, threat_model, with_fast
from stcore.results import names

LINF, L2 = "linf:0.05:apgd-ce", "l2:0.3:apgd-ce"
UNION = f"union:{LINF}+{L2}"


def read(folder, name):
    return read_json(folder / f"{name}.json")


def standing(records, name):
    return records[f"predicted/{name}"] == records["label"]


# Names


def test_a_name_says_its_threat_model():
    assert threat_model("linf:8/255") == ("linf", 8 / 255, "autoattack")
    assert threat_model("l2:0.5:apgd-ce+square") == ("l2", 0.5, "apgd-ce+square")
    assert threat_model("l1:12:package.module:make") == ("l1", 12, "package.module:make")
    assert [threat_model(name) for name in ("pgd20", "l2", "package.l2:make", "union:l2:1")] == [None] * 4
    assert attack_of("l2:0.5", 0.1) == AutoAttack(0.5, "l2")
    assert attack_of("l2:1/2:pgd20", 0.1) == PGD(0.5, 0.125, 20, norm="l2")


def test_a_union_has_members():
    assert members_of("union:linf:8/255+l2:0.5+l1:12") == ["linf:8/255", "l2:0.5", "l1:12"]
    assert members_of("union:linf:8/255:apgd-ce+square+l2:0.5") == ["linf:8/255:apgd-ce+square", "l2:0.5"]
    assert members_of("linf:8/255") is members_of("apgd-ce+square") is None
    found = attacks_by_name(["fgsm", "union:linf:8/255+l2:0.5:fgsm+l1:12"], 0.1)
    assert list(found) == ["fgsm", "linf:8/255", "l2:0.5:fgsm", "l1:12", "union:linf:8/255+l2:0.5:fgsm+l1:12"]
    parts = split(found)
    assert list(parts.by_batch) == ["fgsm", "l2:0.5:fgsm"]
    assert parts.cascades == {"linf:8/255": AutoAttack(8 / 255), "l1:12": AutoAttack(12, "l1")}
    assert list(parts.unions) == ["union:linf:8/255+l2:0.5:fgsm+l1:12"]


def test_fast_replaces_autoattack_alone():
    assert with_fast("union:linf:8/255+l2:0.5:pgd20+l1:12:autoattack") == (
        "union:linf:8/255:autoattack-fast+l2:0.5:pgd20+l1:12:autoattack-fast"
    )
    assert [with_fast(name) for name in ("autoattack", "l2:1", "pgd20", "autoattack-plus")] == [
        "autoattack-fast",
        "l2:1:autoattack-fast",
        "pgd20",
        "autoattack-plus",
    ]


@given(st.sampled_from(("linf", "l2", "l1")), st.floats(0, 1), st.sampled_from(("autoattack", "pgd20")))
def test_the_name_of_a_threat_model_is_exact(norm, epsilon, attack):
    assert threat_model(name_of(attack, norm, epsilon)) == (norm, epsilon, attack)
    said = [name_of("autoattack", "linf", value) for value in (8 / 255, 1.0, 0.05, 2 / 255, 1 / 3, 0.123456789)]
    assert said == ["linf:8/255", "linf:1", "linf:0.05", "linf:2/255", "linf:85/255", "linf:0.123456789"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("union:linf:8/255", "at least two attacks by name"),
        ("union:", "each NORM one of linf, l2, l1"),
        ("union:linf:8/255+pgd20", r"fraction such as 8/255; received '8/255\+pgd20' as the radius"),
        ("union:pgd20+l2:1", "received 'pgd20' in 'union:pgd20.l2:1'"),
        ("union:linf:8/255+l0:3", "fraction such as 8/255; received '8/255.l0' as the radius"),
        ("union:l2:1+l2:1", "expected each threat model of a union once"),
        ("l2:a lot", "received 'a lot' as the radius in l2:a lot"),
        ("l2:1/0", "received '1/0' as the radius"),
        ("l2:nan", "the radius in l2:nan: expected a number of at least 0; received nan"),
        ("linf:8", r"the radius in linf:8: expected a number in \[0, 1\]; received 8"),
        ("l1:1:pgd20", "norm: expected one of linf, l2; received 'l1'"),
        ("l2:1:pgd21", "attacks: expected one of"),
    ],
)
def test_names_of_nothing_are_refused(name, said):
    with pytest.raises(UsageError, match=said):
        attack_of(name, 0.1)


def test_two_attacks_of_one_name_are_refused():
    both = Union({"a": FGSM(0.1), "b": FGSM(0.2)})
    assert list(attacks_by_name({"a": FGSM(0.1), "both": both}, 0)) == ["a", "b", "both"]
    with pytest.raises(UsageError, match="two of the name 'a'"):
        attacks_by_name({"a": FGSM(0.3), "both": both}, 0)
    with pytest.raises(UsageError, match="by names other than natural"):
        attacks_by_name({"both": Union({"natural": FGSM(0.1), "b": FGSM(0.2)})}, 0)
    with pytest.raises(UsageError, match="as members of a union"):
        attacks_by_name({"both": Union({"a": "fgsm", "b": FGSM(0.2)})}, 0)
    with pytest.raises(UsageError, match=r"received l1:12 and l1:12/255\. Write the fraction as a decimal"):
        attacks_by_name(["l1:12", "l1:12/255"], 0)
    with pytest.raises(UsageError, match="expected unions and corruptions by name"):
        named_attacks([both])
    with pytest.raises(UsageError, match="expected at least two attacks by name"):
        Union([FGSM(0.1), FGSM(0.2)])


def test_only_evaluations_take_them():
    with pytest.raises(UsageError, match="select_by"):
        plan(select_by="union:linf:0.1+l2:1")
    assert plan(attacks="union:linf:0.1+l2:1,corruptions").evaluation.attacks[0] == "union:linf:0.1+l2:1"


def test_words():
    assert names.attack_in_words("l2:0.5") == "AutoAttack (ε = 0.5 in l2)"
    assert (
        names.attack_in_words("union:linf:8/255+l2:0.5")
        == "union of ε = 8/255 in l∞ and ε = 0.5 in l2 (AutoAttack)"
    )
    assert names.attack_in_words("union:linf:8/255+l2:0.5:pgd20") == (
        "union of AutoAttack (ε = 8/255 in l∞), PGD-20 (ε = 0.5 in l2)"
    )
    assert names.attack("l2:0.5 (subset 100)") == "AA (ε = 0.5 in l2) (subset 100)"


# The algebra


@st.composite
def predictions(draw):
    labels = draw(arrays.arrays(np.int64, st.integers(1, 12), elements=st.integers(0, 3)))
    members = draw(
        st.lists(arrays.arrays(np.int64, len(labels), elements=st.integers(0, 3)), min_size=2, max_size=4)
    )
    return labels, members, draw(st.permutations(range(len(members))))


@given(predictions())
def test_a_union_is_an_and_over_records(drawn):
    labels, members, order = drawn
    union = joined(members, labels)
    expected = np.logical_and.reduce([classes == labels for classes in members])
    np.testing.assert_array_equal(union == labels, expected)
    assert all((union == labels).sum() <= (classes == labels).sum() for classes in members)
    np.testing.assert_array_equal(joined([members[n] for n in order], labels) == labels, expected)
    for row in np.flatnonzero(~expected):  # a class that some member was fooled into
        assert union[row] in [classes[row] for classes in members if classes[row] != labels[row]]


# In Python


def test_evaluate_takes_the_name_and_the_object(backend):
    rng = np.random.default_rng(0)
    shape = (10, 8, 8, 1) if backend.name == "keras" else (10, 1, 8, 8)
    x, y = rng.random(shape).astype("float32"), rng.integers(0, 10, 10)
    model = backend.build("tiny", dtype="float32", channels=1, classes=10)
    name = "union:linf:0.02:fgsm+l2:0.1:pgd20"
    scores = stcore.evaluate(model, (x, y), [name], audit=False)
    assert list(scores) == ["natural", "linf:0.02:fgsm", "l2:0.1:pgd20", name]
    expected = standing(scores.records, "linf:0.02:fgsm") & standing(scores.records, "l2:0.1:pgd20")
    np.testing.assert_array_equal(standing(scores.records, name), expected)
    assert scores[name].correct == expected.sum()
    members = {"one": FGSM(0.02), "other": PGD(0.1, 0.025, 20, norm="l2")}
    objects = stcore.evaluate(model, (x, y), {"both": Union(members)}, audit=False)
    assert {n: objects[n].correct for n in objects} == dict(
        zip(("natural", "one", "other", "both"), (score.correct for score in scores.values()), strict=True)
    )


# On the command line


@cache
def both():
    """An evaluation under a union, read only."""
    folder = Path(_folders.name) / "union"
    return evaluated(folder, attacks=UNION)


@cache
def alone(norm, epsilon):
    """An evaluation in one threat model, read only: its base."""
    folder = Path(_folders.name) / f"alone-{norm}"
    return evaluated(folder, attacks="apgd-ce", norm=norm, epsilon=epsilon).parent


@ON_EACH
def test_what_an_evaluation_leaves(backend, tmp_path):
    load(backend)
    given_ = {"backend": backend} if backend == "keras" else {}
    folder = both() if backend == "torch" else evaluated(tmp_path / "out", attacks=UNION, **given_)
    records, result = read_arrays(folder / "records.npz"), read(folder, "result")
    assert list(result["accuracies"]) == ["natural", LINF, L2, UNION]
    assert list(result["cascades"]) == [LINF, L2]
    assert result["accuracies"][UNION]["correct"] == (standing(records, LINF) & standing(records, L2)).sum()
    assert (records[f"{L2}/distance"][records[f"{L2}/attack"] >= 0] <= 0.3 + 1e-6).all()
    assert list(read(folder, "evaluation")["attacks"]) == [LINF, L2, UNION]


def test_a_merged_union_is_the_evaluated_one(tmp_path):
    parts = [alone("l2", 0.3), alone("linf", 0.05)]
    said = stcli("merge", "--union", *parts, "--out", tmp_path / "merged")
    assert (said.code, said.err) == (0, "")
    assert "each evaluation keeps its own audit" in said.out
    folder = tmp_path / "merged" / "best"
    records, expected = read_arrays(folder / "records.npz"), read_arrays(both() / "records.npz")
    other = f"union:{L2}+{LINF}"  # in the order of the folders
    np.testing.assert_array_equal(standing(records, other), standing(expected, UNION))
    for name in (LINF, L2):
        for key in (f"predicted/{name}", f"{name}/attack", f"{name}/iteration"):
            np.testing.assert_array_equal(records[key], expected[key])
    scores, theirs = read(folder, "result")["accuracies"], read(both(), "result")["accuracies"]
    assert scores == {**{name: theirs[name] for name in ("natural", L2, LINF)}, other: theirs[UNION]}
    assert read(folder, "evaluation")["merged"] == 2
    again = stcli("merge", "--union", folder.parent, alone_third(), "--out", tmp_path / "three")
    assert again.code == 0, again.err
    three = read(tmp_path / "three" / "best", "result")["accuracies"]
    assert list(three)[-1] == f"union:{L2}+{LINF}+l1:1:apgd-ce"  # the first union is not a member
    assert three[list(three)[-1]]["correct"] <= scores[other]["correct"]


def alone_third():
    return alone("l1", 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"subset": 10}, "images is 12 in|subset is '12' in"),
        ({"subset": "1:13"}, "subset is '12' in"),
        ({"dtype": "float64"}, "dtype is 'float32' in"),
        ({"shard": "1/2"}, "images is 12 in|shard is None in"),
    ],
    ids=str,
)
def test_evaluations_of_others_are_refused(tmp_path, changes, said):
    other = evaluated(tmp_path / "other", attacks="fgsm", norm="l2", epsilon=0.3, **changes).parent
    refusal = stcli("merge", "--union", alone("linf", 0.05), other, "--out", tmp_path / "merged")
    assert refusal.code == 2
    assert "expected evaluations of the same weights and images" in refusal.err
    assert not (tmp_path / "merged").exists()


def test_what_is_no_union_is_refused(tmp_path):
    one, out = alone("linf", 0.05), tmp_path / "merged"
    for parts, said in (
        ((one, one), "expected each threat model and attack once; received linf:0.05:apgd-ce twice"),
        ((one,), "expected evaluations with two attacks or more; received linf:0.05:apgd-ce"),
        ((one, tmp_path), "with the same checkpoints"),
    ):
        refusal = stcli("merge", "--union", *parts, "--out", out)
        assert (refusal.code, said in refusal.err) == (2, True), refusal.err
        assert not out.exists()
    weights = Path(shutil.copytree(alone("l2", 0.3), tmp_path / "weights"))
    text = (weights / "best" / "evaluation.json").read_text()
    from stcore.base.files import write_json

    about = {k: v for k, v in read_json(weights / "best" / "evaluation.json").items() if k != "checksum"}
    write_json(weights / "best" / "evaluation.json", {**about, "weights": "0" * 64})
    refusal = stcli("merge", "--union", one, weights, "--out", out)
    assert (refusal.code, "weights is" in refusal.err) == (2, True)
    (weights / "best" / "evaluation.json").write_text(text)
    (weights / "best" / "records.npz").unlink()
    refusal = stcli("merge", "--union", one, weights, "--out", out)
    assert (refusal.code, "has no records.npz. Finish it first" in refusal.err) == (2, True)


def test_ctrl_c_and_the_same_command_again(monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr("stcore.cli.evaluate.make_progress", lambda _: PressesCtrlC(L2, 20))
        assert evaluate(sound(), "--no-audit", attacks=UNION, out=tmp_path / "out").code == 130
    again = evaluated(tmp_path / "out", attacks=UNION)
    assert read(again, "result")["accuracies"] == read(both(), "result")["accuracies"]


def test_a_radius_with_a_slash_names_files_and_folders(tmp_path):
    run = Path(shutil.copytree(sound(), tmp_path / "run"))
    union = "union:linf:8/255:fgsm+l2:1/2:apgd-ce"
    said = evaluate(run, "--no-audit", "--save-examples", attacks=union, subset=4)
    assert (said.code, said.err) == (0, "")
    (base,) = (run / "evaluations").iterdir()
    assert base.name.startswith("linf:8_255:fgsm-l2:1_2:apgd-ce-union")
    assert {path.name for path in (base / "best").glob("*-examples.npz")} == {
        "linf:8_255:fgsm-examples.npz",
        "l2:1_2:apgd-ce-examples.npz",
    }
    again = evaluate(run, "--no-audit", "--save-examples", attacks=union, subset=4)
    assert "finished before" in again.out


def test_tables_and_reports_name_the_union_and_its_corruptions(tmp_path):
    """With the budgets that the names say, not the run's."""
    run, out = Path(shutil.copytree(sound(), tmp_path / "run")), tmp_path / "report.md"
    asked = "union:linf:8/255:fgsm+l2:1/2:fgsm,corruptions:fog+jpeg_compression:1+5"
    said = stcli("evaluate", run, "--no-audit", "--checkpoint", "best", "--epsilon", "0.05", "--attacks", asked)
    assert (said.code, said.err) == (0, "")
    table = stcli("table", run, "--evaluations")
    assert (table.code, table.err) == (0, "")
    header = table.out.splitlines()[0]
    for name in (
        "linf:8/255:fgsm %",
        "union:linf:8/255:fgsm+l2:1/2:fgsm %",
        "corruptions:fog+jpeg_compression:1+5 %",
    ):
        assert name in header
    assert "0.05" not in header
    assert stcli("report", run, "--format", "markdown", "--no-examples", "--out", out).code == 0
    text = out.read_text().replace("\xa0", " ").replace("\\", "")
    assert "union of ε = 8/255 in l∞ and ε = 0.5 in l2 (FGSM)" in text
    assert "Accuracy in percent on corrupted versions of 32 images, best checkpoint, by severity" in text
    assert "| jpeg compression |" in text
    card = tmp_path / "card.md"
    assert stcli("report", run, "--format", "card", "--out", card).code == 0
    assert "mean corruption accuracy" in card.read_text()
    assert "| jpeg compression |" in card.read_text()


def test_fast_is_respected_and_said(tmp_path):
    said = stcli(
        "evaluate",
        sound(),
        "--fast",
        "--no-audit",
        *words(
            {"attacks": "union:linf:0.05+l2:0.3:fgsm", "subset": 4, "checkpoint": "best", "out": tmp_path / "out"}
        ),
    )
    assert (said.code, said.err) == (0, "")
    result = read(tmp_path / "out" / "best", "result")
    assert list(result["accuracies"])[1:3] == ["linf:0.05:autoattack-fast", "l2:0.3:fgsm"]
    assert "fast: APGD-CE in 25 steps" in said.out


def test_robustbench_has_no_entry_for_a_union():
    said = stcli(
        "export",
        "robustbench",
        sound(),
        *words(
            {
                "evaluation": both(),
                "name": "Li2023Squeeze",
                "title": "t",
                "authors": "a",
                "link": "https://a.b",
                "venue": "v",
                "out": "/nowhere",
            }
        ),
    )
    assert (said.code, "expected one with autoattack" in said.err) == (2, True), said.err
