"""`stcli report`: its numbers against the run's JSON, and that nothing in a run's folder becomes markup."""

import base64
import json
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from reported import TOTAL, Page, make_evaluation, make_row, make_run, shown, undrawn
from small import contents, stcli, trained

import stcore
from stcore import zoo
from stcore.base.files import write_arrays
from stcore.base.weights_file import load_weights, save_weights
from stcore.cli.training_plan import plan_from
from stcore.errors import UsageError
from stcore.evaluation.accuracy import Accuracy, MeanAccuracy
from stcore.evaluation.results import as_json
from stcore.methods import METHODS
from stcore.paper import PRESETS
from stcore.report.gathered import gather
from stcore.report.reproduce import options_of, train_command
from stcore.report.trained import sentences
from stcore.results.comparison import compare
from stcore.results.names import attack_in_words
from stcore.runs.plan import make_plan
from stcore.runs.record import read_record

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

ZOO = "digits-small-cnn-st"
RESULTS = "Accuracy on the test split"
LATER = "Evaluated later, by stcli evaluate"


def report(out, *runs, examples=False, drawn=False):
    """The page of a report; drawn: with its figures."""
    words = ("report", *runs, "--out", out, "--examples" if examples else "--no-examples")
    with undrawn(not drawn):
        said = stcli(*words)
    assert said.code == 0, said.err
    return Page.of(out)


@pytest.fixture(scope="module")
def evaluated_once(backend, tmp_path_factory):
    run = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(trained(backend.name).path, run)
    said = stcli("evaluate", run, "--checkpoint", "best", "--attacks", "apgd-ce", "--subset", "8")
    assert said.code == 0, said.err
    return run


@pytest.fixture
def evaluated(evaluated_once, tmp_path):
    """A copy of a real run, tiny, evaluated once more and audited."""
    return shutil.copytree(evaluated_once, tmp_path / "run")


def test_a_report_shows_the_numbers_of_the_runs_files(evaluated, tmp_path):
    page = report(tmp_path / "report.html", evaluated, examples=True, drawn=True)
    result = json.loads((evaluated / "result.json").read_text())
    titles, *rows = page.table(RESULTS)
    attacks = ["natural", "fgsm", "pgd20"]
    assert titles == ["checkpoint", "natural %", "FGSM %", "PGD-20 %"]
    expected = [
        [f"{name} epoch {result['checkpoint_epochs'][name]}", *(shown(scores[attack]) for attack in attacks)]
        for name, scores in result["checkpoints"].items()
    ]
    assert rows == expected
    (file,) = evaluated.glob("evaluations/*/best/result.json")
    found = json.loads(file.read_text())
    _, *later = page.table(LATER)
    assert [row[-1] for row in later] == [shown(found["accuracies"][name]) for name in ("natural", "apgd-ce")]
    answers = {row[0]: row[2:] for row in page.table("The audit")[1:]}
    assert answers == {one["check"]: [one["value"], one["meaning"]] for one in found["audit"]}
    settings = {row[0]: row[1] for row in page.table("Settings")[1:]}
    assert settings["batch_size"] == "40"
    assert settings["model"] == "tiny"
    data = {row[0]: row[1:] for row in page.table("Splits of digits")[1:]}
    known = json.loads((evaluated / "environment.json").read_text())["data"]
    assert data == {name: [str(it["images"]), it["sha256"]] for name, it in known.items()}
    assert {name: size for name, (size, _) in data.items()} == {"train": "64", "validation": "32", "test": "32"}
    assert (tmp_path / "report.html").stat().st_size < 3e6


def test_the_figures_of_a_report_have_descriptions(evaluated, tmp_path):
    page = report(tmp_path / "report.html", evaluated, examples=True)
    images = [image for image in page.all("img") if image["class"] == "light"]
    assert len(images) == 3  # accuracies, losses, examples
    assert [image["alt"] for image in page.all("img")] == [image["alt"] for image in images for _ in range(2)]
    rows = [json.loads(line) for line in (evaluated / "metrics.jsonl").read_text().splitlines()]
    first, last = (f"{100 * row['natural_accuracy']:.2f} %" for row in rows)
    assert f"natural from {first} in epoch 1 to {last} in epoch 2" in images[0]["alt"]
    assert f"natural from {rows[0]['natural_loss']:.3g} nats" in images[1]["alt"]
    assert re.search(r"adversarial images: \d of 4 classified correctly", images[2]["alt"])


def addresses(page):
    """All that a browser would follow by itself, and links."""
    loaded = [
        tag.attributes[name] for tag in page.tags for name in ("src", "srcset", "data") if name in tag.attributes
    ]
    return loaded, [tag.attributes["href"] for tag in page.tags if "href" in tag.attributes]


def test_the_page_asks_for_nothing(tmp_path):
    run = make_run(tmp_path / "run")
    make_evaluation(run)
    page = report(tmp_path / "report.html", run, make_run(tmp_path / "other", method="trades"), drawn=True)
    loaded, links = addresses(page)
    assert loaded
    assert all(address.startswith("data:image/svg+xml;base64,") for address in loaded)
    assert all(link.startswith("#") or link == "data:," for link in links)
    ids = [tag.attributes["id"] for tag in page.tags if "id" in tag.attributes]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    assert not page.all("script")
    css = re.search(r"<style>(.*?)</style>", (tmp_path / "report.html").read_text(), re.S)[1]
    assert "url(" not in css
    assert "@import" not in css
    for address in loaded:
        svg = base64.b64decode(address.partition(",")[2]).decode()
        assert all(link.startswith(("#", "data:")) for link in re.findall(r'href="([^"]*)"', svg))
        assert not re.search(r"<script|@import|url\((?!#)", svg)


HOSTILE = "<img src=x onerror=alert(1)> & \"$x_1$' `#|*"


def test_what_a_run_is_called_and_says_is_text(tmp_path):
    rows = [make_row(1), make_row(2, trouble={"collapse": f"epoch 2: {HOSTILE}"})]
    run = make_run(tmp_path / HOSTILE, dataset=f"npz:{HOSTILE}", rows=rows, epochs=2, result={"stopped": HOSTILE})
    make_evaluation(run, attack=HOSTILE.replace("/", ""), subset=HOSTILE)
    page = report(tmp_path / "report.html", run, drawn=True)
    assert page.text.count(HOSTILE) > 5
    assert all(image["src"].startswith("data:") for image in page.all("img"))
    assert not any(name.startswith("on") for tag in page.tags for name in tag.attributes)
    assert not page.all("b")  # which an audit's meaning holds
    assert "Misleads <b>here</b>." in page.text
    said = stcli("report", run, "--out", tmp_path / "report.md", "--format", "markdown", "--no-examples")
    assert said.code == 0, said.err
    text = (tmp_path / "report.md").read_text()
    outside_code = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", text, flags=re.S | re.M)
    assert not re.search(r"(?<!\\)<", outside_code)


def test_settings_that_differ_are_marked(tmp_path):
    run = make_run(tmp_path / "run", beta=2.0, batch_size=32)
    page = report(tmp_path / "report.html", run)
    changed = {row[0]: row[1:] for row in page.table("Settings that differ from the preset digits")[1:]}
    assert changed == {
        "attacks": ["pgd20", "fgsm,pgd20"],
        "batch_size": ["32", "64"],
        "beta": ["2", "6"],
        "epochs": ["3", "20"],
    }
    whole = {row[0]: row[1] for row in page.table("Settings")[1:]}
    assert whole.keys() == make_plan({}).flat().keys()


PLANS = {
    "nothing": {},
    "another ε": {"epsilon": 0.1},
    "an ε with another step": {"epsilon": 0.1, "step_size": 0.05},
    "l2": {"norm": "l2", "epsilon": 0.5},
    "a row of the paper": {"preset": "table1/cifar10/st-awp"},
    "a row without its perturbation": {"preset": "table1/cifar10/st-awp", "awp": None},
    "no drops": {"schedule": "cosine"},
    "other drops": {"drops": (0.25, 0.5)},
    "switches": {"nesterov": True, "method": "trades", "share_natural": True, "stop_gradient_targets": False},
    "words with blanks": {"dataset": "npz:a folder", "method": "gairat", "backend": "keras", "epochs": 7},
    "around": {"ema": 0.995, "rwp": 0.01, "perturbation_warmup": 2, "extra_data": "npz:more.npz"},
}


@pytest.mark.parametrize("given", PLANS.values(), ids=PLANS)
def test_the_command_makes_the_plan_again(given):
    plan = make_plan(given)
    preset = given.get("preset", plan.preset)
    command, train, *words = shlex.split(train_command(plan, preset, "out"))
    assert (command, train) == ("stcli", "train")
    again, out, _ = plan_from(words)
    assert out == "out"
    assert {**again.flat(), "preset": None} == {**plan.flat(), "preset": None}


def test_a_default_run_needs_no_more_than_its_choices():
    assert options_of(make_plan({}), "digits") == {}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_said_in_words(method):
    """Also those whose steps count in ε."""
    plan = make_plan({"method": method, "dataset": "cifar10"})
    said = " ".join(sentences(SimpleNamespace(weights={}, checkpoint="best"), plan)).replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert ("searched for examples within ε = 8/255" in said) == (method != "standard")
    assert ("in 1 step of 10/255" in said) == (method == "fgsm-rs")


def test_an_unfinished_run_is_reported_as_such(tmp_path):
    run = make_run(tmp_path / "run", finished=False, rows=[make_row(1)])
    page = report(tmp_path / "report.html", run)
    assert "1 run, none of them finished." in page.text
    assert f"Unfinished: 1 of 3 epochs are done. To resume: stcli train --resume {run}" in page.text
    caption = "The last epoch, on the images that select the best epoch, not on the test split"
    assert page.table(caption)[1] == ["1", "60.00", "25.00"]
    fresh = make_run(tmp_path / "fresh", finished=False, rows=[])
    assert "Unfinished: 0 of 3 epochs" in report(tmp_path / "report.html", fresh).text


def test_warnings_and_rollbacks_are_reported(tmp_path):
    undone = {"trouble": "nan", "epoch": 2, "to": 0, "said": "no number"}
    rows = [make_row(1, rolled_back=[undone]), make_row(2, trouble={"collapse": "epoch 2: collapse. Take more."})]
    page = report(
        tmp_path / "a.html", make_run(tmp_path / "a", rows=rows, result={"stopped": "collapse in epoch 2"})
    )
    assert "Training diagnosis, epoch 2: collapse. Take more." in page.text
    assert "Training was stopped early: collapse in epoch 2." in page.text
    assert page.table("Rollbacks, each with a tenth of the learning rate")[1] == ["2", "start", "no number"]
    assert "resumed" not in page.text
    later = make_run(tmp_path / "b", result={"started": "2026-01-01T09:00:06+00:00"})
    page = report(tmp_path / "b.html", later)
    assert "resumed: the process that finished it started at 2026-01-01T09:00:06+00:00" in page.text
    assert "The training diagnosis found no problem in any epoch." in page.text


def test_an_evaluation_of_other_weights_counts_for_nothing(tmp_path):
    run = make_run(tmp_path / "run")
    make_evaluation(run, correct=40)
    make_evaluation(run, attack="square", correct=99, weights="others")
    make_evaluation(run, attack="fab", finished=False)
    page = report(tmp_path / "report.html", run)
    rows = {row[1].partition(" ")[0]: row for row in page.table(LATER)[1:] if row[1] != "natural"}
    assert rows["square"][0] == "best other weights"
    assert rows["fab"][-1] == "unfinished"
    values = set(re.findall(r"accuracy under ([^ ]+)", page.text))
    assert "AutoAttack" in values
    assert "square" not in values
    assert "--attacks square" not in page.text
    assert "--attacks autoattack --subset 100" in page.text
    assert "1 of 3 checks passed, 1 could not run, and 1 raised doubts:" in page.text


def test_runs_are_compared(tmp_path):
    counts = {"a": 200, "b": 205, "c": 20}
    runs = [
        make_run(tmp_path / name, correct=correct, beta=beta)
        for (name, correct), beta in zip(counts.items(), (1.0, 2.0, 3.0), strict=True)
    ]
    page = report(tmp_path / "report.html", *runs)
    _, *rows = page.table("Best checkpoints")
    assert [row[0] for row in rows] == ["a st", "b st", "c st"]
    assert [row[-1] for row in rows] == [
        shown({"correct": correct, "total": TOTAL}) for correct in counts.values()
    ]
    assert page.table("Settings in which the runs differ") == [["setting", "a", "b", "c"], ["beta", "1", "2", "3"]]
    low = Accuracy(205, TOTAL).interval()[0]
    assert Accuracy(200, TOTAL).interval()[1] > low > Accuracy(20, TOTAL).interval()[1]
    assert f"{20500 / TOTAL:.2f} %" in page.text
    assert "not clearly above a" in page.text
    assert "not clearly above a and c" not in page.text.partition("All runs")[0].partition("PGD-20")[2]
    assert "Compare with care" not in page.text


def test_reasons_against_comparing_runs_are_reported(tmp_path):
    one, other = make_run(tmp_path / "one"), make_run(tmp_path / "other", data="cd", eval_epsilon=0.1)
    unfinished = make_run(tmp_path / "third", finished=False)
    page = report(tmp_path / "report.html", one, other, unfinished)
    assert "the runs differ in their test images. one: 347 test images (abtestab); other: 347" in page.text
    assert "the runs differ in the attacks' budget. one: ε = 0.2 in l∞; other: ε = 0.1 in l∞." in page.text
    assert page.table("Best checkpoints")[3] == ["third st, unfinished", "–", "–"]
    assert "No figure of accuracies: runs: expected one data set for all" in page.text


def test_a_run_of_a_preset_is_compared_with_the_papers_row(tmp_path):
    preset = "table1/cifar10/st"
    run = make_run(tmp_path / "run", preset=preset, select="test", epochs=120)
    page = report(tmp_path / "report.html", run)
    verdict = compare(PRESETS[preset], [read_record(run)])
    assert verdict.reasons
    _, *rows = page.table(f"Compared with the paper's row {preset}, best checkpoint")
    assert len(rows) == len(verdict.rows) > 0
    for cells, row in zip(rows, verdict.rows, strict=True):
        assert cells[1] == f"{row.mean:.2f} [{row.low:.2f}, {row.high:.2f}]"
        assert cells[2].startswith(f"{row.expected.mean:.2f}")
        assert cells[3:] == [f"{row.difference:+.2f}", "not comparable"]
    assert all(reason in page.text for reason in verdict.reasons)
    assert "optimistic" in page.text


def test_without_its_data_a_run_is_reported_without_examples(tmp_path):
    run = make_run(tmp_path / "run", dataset=f"npz:{tmp_path / 'gone'}")
    page = report(tmp_path / "report.html", run, examples=True)
    assert "No examples: they could not be computed." in page.text
    assert str(tmp_path / "gone") in page.text


def test_other_test_images_are_not_shown_as_the_run_s(evaluated, tmp_path):
    about = json.loads((evaluated / "environment.json").read_text())
    about["data"]["test"]["sha256"] = "0" * 64
    del about["checksum"]
    (evaluated / "environment.json").write_text(json.dumps(about))
    page = report(tmp_path / "report.html", evaluated, examples=True)
    assert "digits holds other test images than those of the run's evaluation" in page.text


def test_settings_of_another_version_are_listed_as_they_stand(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "config.toml").write_text('method = "st"\nnovelty = 3\n')
    page = report(tmp_path / "report.html", run)
    assert page.table("Settings")[1:] == [["method", "st"], ["novelty", "3"]]
    assert "Another version of stcli train" in page.text
    assert f"stcli train --config {run / 'config.toml'}" in page.text


def test_markdown_says_the_same(evaluated, tmp_path):
    page = report(tmp_path / "report.html", evaluated, examples=True)
    said = stcli("report", evaluated, "--out", tmp_path / "report.md", "--format", "markdown")
    assert said.code == 0, said.err
    text = (tmp_path / "report.md").read_text()
    plain = re.sub(r"\\(?=[\W_])", "", text)
    for row in (*page.table(RESULTS), *page.table(LATER), *page.table("The audit")):
        assert all(cell in plain for cell in row)
    links = re.findall(r"^!\[.*\]\((.*)\)$", text, re.M)
    assert 2 * len(links) == len(page.all("img"))
    assert all((tmp_path / link).read_bytes().startswith(b"\x89PNG") for link in links)


@pytest.fixture
def card(evaluated, tmp_path):
    said = stcli("report", evaluated, "--out", tmp_path / "card.md", "--format", "card")
    assert said.code == 0, said.err
    return evaluated, (tmp_path / "card.md").read_text()


def test_a_card_begins_with_what_the_hub_reads(card):
    yaml = pytest.importorskip("yaml")
    run, text = card
    _, front, body = text.split("---\n", 2)
    content = yaml.safe_load(front)
    (index,) = content["model-index"]
    (results,) = index["results"]
    best = json.loads((run / "result.json").read_text())["checkpoints"]["best"]
    values = [metric["value"] for metric in results["metrics"]]
    assert values[:3] == [round(100 * best[name]["accuracy"], 2) for name in ("natural", "fgsm", "pgd20")]
    assert len(values) == 4
    assert results["dataset"] == {"type": "digits", "name": "digits", "split": "test"}
    assert content["license"] == "unknown"
    for title in ("Intended use", "Threat model", "Results", "What was trained", "Data", "How to load it"):
        assert f"\n## {title}\n" in body


def test_the_card_s_code_loads_the_weights(card, backend, monkeypatch):
    run, text = card
    monkeypatch.chdir(run)
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.S) if f'"{backend.name}"' in block)
    names = {}
    exec(compile(code, "card", "exec"), names)
    from stcore.base.weights_file import load_weights
    from stcore.models import export_weights

    loaded, there = export_weights(names["model"]), load_weights(run / "best.safetensors")[0]
    assert all((loaded[name] == there[name]).all() for name in there)


def test_each_robust_accuracy_of_a_card_has_one_radius(tmp_path):
    run = make_run(tmp_path / "run", eval_epsilon=0.1)
    make_evaluation(run)
    metrics = re.findall(r'name: "(robust accuracy, .*)"', card_of(run, tmp_path))
    assert [re.findall(r"ε\s=\s([\d.]+)", name) for name in metrics] == [["0.1"], ["0.2"]]


def card_of(run, tmp_path):
    said = stcli("report", run, "--out", tmp_path / "card.md", "--format", "card")
    assert said.code == 0, said.err
    return re.sub(r"\\(?=[\W_])", "", (tmp_path / "card.md").read_text())


CONSTANT = [{"check": "several classes", "status": "warn", "value": "1 class", "meaning": "One class."}]


@pytest.mark.parametrize(
    ("natural", "audit", "reason"),
    [
        (
            41,
            None,
            "natural accuracy, 11.82 % [{interval}], is not clearly above the 10 % of guessing one of 10 classes",
        ),
        (5, None, "is not clearly above the 10 %"),
        (100, CONSTANT, "its audit found that it predicts the same class for every image"),
        (41, CONSTANT, "10 classes and its audit found that it predicts the same class for every image"),
    ],
)
def test_a_network_that_has_learnt_nothing_is_not_offered(natural, audit, reason, tmp_path):
    run = make_run(tmp_path / "run", natural=natural, correct=natural, about={"num_classes": 10})
    if audit:
        make_evaluation(run, audit=audit)
    page, card = report(tmp_path / "report.html", run), card_of(run, tmp_path)
    interval = shown({"correct": natural, "total": TOTAL}).partition("[")[2].rstrip("]")
    for text in (page.text, card):
        first = text.index("this network has learnt nothing")
        assert (
            first
            < text.index("natural accuracy", text.index("Do not use it."))
            < text.index("Accuracy on the test")
        )
        assert reason.format(interval=interval) in text
    assert "## Intended use\n\n> **Warning.** None" in card
    assert "Classifying images like" not in card
    assert "pipeline_tag" not in card
    other = make_run(tmp_path / "other", about={"num_classes": 10})
    both = report(tmp_path / "both.html", other, run).text
    assert both.count("this network has learnt nothing") == 1
    assert "run, best checkpoint: this network has learnt nothing" in both


def test_a_network_that_has_learnt_something_is_offered(tmp_path):
    run = make_run(tmp_path / "run", natural=60, correct=30, about={"num_classes": 10})
    make_evaluation(run)
    make_evaluation(run, attack="square", weights="others", audit=CONSTANT)
    assert Accuracy(60, TOTAL).interval()[0] > 0.1 > Accuracy(30, TOTAL).interval()[0]
    text = card_of(run, tmp_path)
    assert "learnt nothing" not in text + report(tmp_path / "report.html", run).text
    assert "Classifying images like those of digits whose pixels" in text
    assert "pipeline_tag" in text


def test_a_card_names_the_data_and_what_loading_needs(tmp_path):
    run = make_run(tmp_path / "run", dataset="folder:/some/where/pets", model="zoo.nets:small", epsilon=8 / 255)
    text = card_of(run, tmp_path)
    for part in ("train", "validation", "test"):
        assert f"| {part} | {TOTAL} | {f'ab{part}' * 8} |" in text
    assert "zoo.nets:small on pets\n" in text
    assert "images like those of pets whose pixels" in text
    assert 'name: "pets"' in text
    assert "in 10 steps of 2/255." in text
    assert "zoo.nets:small must be importable to load the weights" in text
    assert re.search(r"All settings are those of the preset \S+, except the following\.", text)
    assert "must be importable" not in card_of(make_run(tmp_path / "own"), tmp_path)


def test_the_label_of_the_losses_fits_its_axis(tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from stcore.analysis import losses
    from stcore.figures.losses import draw

    figure = draw(losses.compute({"run": make_run(tmp_path / "run")}, losses.Settings()))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    (label,) = (text for text in figure.texts if "cross-entropy" in text.get_text())
    assert label.get_window_extent(canvas.get_renderer()).height < figure.axes[0].get_window_extent().height


def test_what_cannot_be_reported_is_a_sentence(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    before = contents(tmp_path)
    for words, part in {
        (tmp_path,): "expected a folder with config.toml",
        (run, run): "expected each run once",
        (run, "--out", tmp_path): "expected a file",
        (run, "--out", tmp_path / "no" / "report.html"): "existing folder",
        (run, "--format", "pdf"): "format: expected one of html, markdown, card",
        (run, make_run(tmp_path / "two"), "--format", "card", "--out", tmp_path / "c.md"): "expected one run",
        (make_run(tmp_path / "three", finished=False), "--format", "card", "--out", tmp_path / "c.md"): "finished",
        (): "expected at least one run's folder",
    }.items():
        said = stcli("report", *words)
        assert said.code == 2, said
        assert part in said.err
    assert contents(tmp_path).items() >= before.items()
    assert not list(tmp_path.glob("*.md"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = stcli("report", run, "--out", tmp_path / "report.html")
    assert said.code == 2
    assert "matplotlib and jinja2 not installed: pip install 'stcore[plots]'" in said.err


def test_an_earlier_report_stays_where_a_new_one_fails(tmp_path, monkeypatch):
    run, out = make_run(tmp_path / "run"), tmp_path / "report.html"
    out.write_text("earlier")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    said = stcli("report", run, "--out", out, "--no-examples")
    assert said.code == 2
    assert "No space left" in said.err
    assert out.read_text() == "earlier"
    assert not list(tmp_path.glob(".*.part"))


def test_many_runs_are_rows(tmp_path):
    runs = [make_run(tmp_path / str(n), seed=n, correct=200 + n) for n in range(7)]
    page = report(tmp_path / "report.html", *runs)
    assert page.table("Settings in which the runs differ") == [
        ["run", "seed"],
        *([str(n), str(n)] for n in range(7)),
    ]
    assert [row[0] for row in page.table("Best checkpoints")[1:]] == [f"{n} st" for n in range(7)]


def test_runs_with_the_same_name_are_distinguished_by_their_folders(tmp_path):
    runs = [make_run(tmp_path / parent / "seed1") for parent in ("a", "b")]
    page = report(tmp_path / "report.html", *runs)
    assert [row[0] for row in page.table("Best checkpoints")[1:]] == ["a/seed1 st", "b/seed1 st"]


def test_the_report_knows_the_audits_question_by_its_name():
    from stcore.audit import CHECKS
    from stcore.report.summary import ONE_CLASS

    assert ONE_CLASS in {check.name for check in CHECKS}


# Networks of the zoo


@pytest.fixture
def of_zoo(tmp_path, monkeypatch):
    """The card of a network with evaluations in the working folder: corruptions, minimum norms, others."""
    monkeypatch.chdir(tmp_path)
    card = zoo.read_card(ZOO)
    own = {"checkpoint": ZOO, "weights": card.weights, "data": card.data, "epsilon": card.epsilon}
    fmn = make_evaluation(tmp_path, attack="fmn", images=347, **{**own, "subset": None})
    arrays = {name.replace("autoattack", "fmn"): array for name, array in card.read_records().items()}
    write_arrays(fmn / "records.npz", {**arrays, "fmn/minimum_norm": np.array(True)})
    union = "union:linf:0.2:pgd20+l2:1.0:pgd20"
    make_evaluation(tmp_path, attack=union, correct=21, **own)
    make_evaluation(tmp_path, attack="pgd100", correct=33, **{**own, "checkpoint": "copied"})  # by its weights
    fog = make_evaluation(tmp_path, attack="corruptions:fog:1+3", **own)
    mean = MeanAccuracy.of({"fog": {1: Accuracy(80, 100), 3: Accuracy(61, 100)}})
    accuracies = as_json({"natural": Accuracy(90, 100), "corruptions:fog:1+3": mean})
    (fog / "result.json").write_text(json.dumps({"accuracies": accuracies, "cascades": {}, "audit": None}))
    make_evaluation(tmp_path, attack="square", correct=11, **{**own, "weights": "another"})
    make_evaluation(tmp_path, attack="fab", correct=12, **{**own, "data": "another"})
    make_evaluation(
        tmp_path, attack="fgsm", correct=13, **{**own, "weights": "its", "checkpoint": "other-network"}
    )
    return card


def test_a_network_of_the_zoo_is_reported_from_its_card(of_zoo, tmp_path):
    page = report(tmp_path / "report.html", f"zoo:{ZOO}")
    scores = {name: Accuracy.of_json(score).as_json() for name, score in of_zoo.accuracies.items()}
    assert page.table(RESULTS)[1:] == [["best", *map(shown, scores.values())]]
    stages = page.table("Images still classified correctly after each attack")[1:]
    assert stages[-1] == ["square", f"{scores['autoattack']['correct']} of 347"]
    later = {row[1].split(" ε")[0]: row for row in page.table(LATER)[1:] if not row[1].startswith("natural")}
    assert {name: row[0] for name, row in later.items()} == {
        "FMN": "best",
        attack_in_words("union:linf:0.2:pgd20+l2:1.0:pgd20").split(" ε")[0]: "best",
        "PGD-100": "best",
        "corruptions:fog:1+3": "best",
        "square": "best other weights",
        "fab": "best other test images",
    }
    caption = "Accuracy in percent on corrupted versions of 100 images, best checkpoint, by severity"
    assert page.table(caption)[1][:3] == ["fog", "80.00", "61.00"]
    curves = page.table("Median l∞ norm of the nearest examples, over the images that are classified correctly")
    assert [row[1:3] for row in curves[1:]] == [["FMN", "347"], ["all attacks", "347"]]
    assert of_zoo.data_note in page.text
    assert f"The licence of the weights is {of_zoo.licence}." in page.text
    assert {row[0]: row[1:] for row in page.table("Splits of digits")[1:]} == {"test": ["347", of_zoo.data]}
    for command in (*of_zoo.commands, f"stcli evaluate zoo:{ZOO} --attacks pgd100"):
        assert command in " ".join(page.text.replace("\\", "").split())
    assert "How training went" not in page.text
    assert "epoch by epoch" not in page.text


def test_the_model_card_of_a_network_of_the_zoo(of_zoo, tmp_path):
    said = stcli("report", f"zoo:{ZOO}", "--format", "card", "--out", tmp_path / "card.md")
    assert said.code == 0, said.err
    text = (tmp_path / "card.md").read_text()
    assert f'license: "{of_zoo.licence.lower()}"' in text
    assert f'name: "{ZOO}"' in text
    assert f'stcore.load("zoo:{ZOO}", backend="keras")' in text


def test_a_network_of_the_zoo_is_compared_with_a_run(of_zoo, tmp_path):
    page = report(tmp_path / "report.html", make_run(tmp_path / "run"), "zoo:digits-small-cnn-fast-st")
    rows = page.table("Best checkpoints")[1:]
    assert [row[0] for row in rows] == ["run st", "zoo:digits-small-cnn-fast-st fast-st, last"]
    assert "Compare with care: the runs differ in their test images." in page.text


@pytest.mark.parametrize("examples", ["--examples", "--no-examples"])
def test_an_unknown_network_of_the_zoo_is_named(examples, tmp_path):
    said = stcli("report", "zoo:digits-smal-cnn-st", examples, "--out", tmp_path / "report.html")
    assert said.code == 2
    assert "Did you mean 'digits-small-cnn-st'?" in said.err


@pytest.mark.parametrize("name", zoo.names())
def test_a_part_of_the_split_is_known_by_what_the_card_says(name, tmp_path, monkeypatch):
    """The fingerprint of a part to which the run shortened its split is not on the card."""
    monkeypatch.chdir(tmp_path)
    card = zoo.read_card(name)
    about = {"checkpoint": name, "weights": card.weights, "data": "of a part", "dataset": card.config["dataset"]}
    make_evaluation(tmp_path, **about, subset=None)
    make_evaluation(tmp_path, **about)
    make_evaluation(tmp_path, **{**about, "dataset": "npz"}, subset=None)
    (run,) = gather([Path(f"zoo:{name}")])
    same = "" if "test_size" in card.config else "other test images"
    assert [one.mismatch for one in run.evaluations] == [same, "other test images", "other test images"]


def test_a_loaded_network_writes_its_report(of_zoo, backend, tmp_path):
    network = stcore.load(f"zoo:{ZOO}", backend=backend.name)
    with undrawn():
        path = network.report(tmp_path / "report.html", examples=False)
    assert Page.of(path).table(RESULTS)
    save_weights(tmp_path / "w.safetensors", *load_weights(of_zoo.files["safetensors"]))
    with pytest.raises(UsageError, match="expected a run, or a network of the zoo"):
        stcore.load(tmp_path / "w.safetensors", backend=backend.name).report(tmp_path / "again.html")
