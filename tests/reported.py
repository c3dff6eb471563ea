"""Run folders made up for a report, and a report's page as its reader sees it."""

import contextlib
import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from unittest import mock

from stcore.base.weights_file import load_weights, save_weights
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.results import as_json
from stcore.runs.evaluation_identity import fingerprint
from stcore.runs.folder import RunFolder
from stcore.runs.plan import make_plan

TOTAL = 347
WEIGHTS = {"w": [1.0, 2.0, 3.0]}
FINDINGS = [
    {"check": "finite logits", "status": "pass", "value": "all", "meaning": "Numbers."},
    {"check": "another loss", "status": "warn", "value": "9 of 20 fall", "meaning": "Misleads <b>here</b>."},
    {"check": "transfer", "status": "skipped", "value": "", "meaning": "None at hand."},
]


def make_run(
    path,
    *,
    correct=200,
    natural=300,
    epochs=3,
    finished=True,
    rows=None,
    result=None,
    data="ab",
    about=None,
    **settings,
):
    """A run's folder. correct, natural: of TOTAL test images, under PGD-20 and as they are, of the best.

    about: what the weights' files say.
    """
    folder = RunFolder.create(path)
    plan = make_plan({"attacks": "pgd20", "epochs": epochs, **settings})
    folder.write_config({**plan.flat(), "preset": settings.get("preset", plan.preset)})
    parts = {part: {"images": TOTAL, "sha256": f"{data}{part}" * 8} for part in ("train", "validation", "test")}
    folder.write_json(
        "environment.json", {"device": "cpu", "torch": "2", "data": parts, "written": "2026-01-01T10:00:05+0100"}
    )
    for row in rows if rows is not None else [make_row(epoch) for epoch in range(1, epochs + 1)]:
        folder.append_metrics(row)
    for name in ("best", "last"):
        save_weights(path / f"{name}.safetensors", WEIGHTS, about or {})
    if finished:
        best = {"natural": Accuracy(natural, TOTAL), "pgd20": Accuracy(correct, TOTAL)}
        last = {"natural": Accuracy(natural - 1, TOTAL), "pgd20": Accuracy(correct - 7, TOTAL)}
        content = {
            "split": "test",
            "images": TOTAL,
            "epsilon": plan.evaluation.epsilon,
            "selected_on": f"{plan.evaluation.select_by}@{plan.evaluation.select}",
            "checkpoint_epochs": {"best": 2, "last": epochs},
            "checkpoints": {"best": as_json(best), "last": as_json(last)},
            "started": "2026-01-01T09:00:00+00:00",
            **(result or {}),
        }
        folder.write_json("result.json", content)
    return path


def make_row(epoch, **more):
    """An epoch's metrics."""
    return {
        "epoch": epoch,
        "learning_rate": 0.1,
        "loss": 2.0 / epoch,
        "natural_loss": 1.0 / epoch,
        "adversarial_loss": 2.0 / epoch,
        "collaborative_loss": 0.5 / epoch,
        "seconds": 1.5,
        "images_per_second": 100.0 * epoch,
        "natural_accuracy": 0.5 + epoch / 10,
        "pgd20_accuracy": 0.2 + epoch / 20,
        "best_epoch": epoch,
        **more,
    }


def make_evaluation(
    run, attack="autoattack", correct=40, images=100, checkpoint="best", finished=True, audit=None, **about
):
    """An evaluation's folder in a run's, with an audit."""
    path = run / "evaluations" / f"{attack}-{len(list(run.glob('evaluations/*')))}" / checkpoint
    path.mkdir(parents=True)
    plan, _ = make_plan({}), None
    content = {
        "weights": about.get("weights") or fingerprint(load_weights(run / f"{checkpoint}.safetensors")[0]),
        "data": "abtest" * 8,
        "attacks": {attack: "as it is"},
        "images": images,
        "subset": str(images),
        "shard": None,
        "epsilon": plan.evaluation.epsilon,
        "norm": plan.norm,
        "backend": plan.runtime.backend,
        "dtype": plan.runtime.dtype,
        "seed": 0,
        **about,
    }
    (path / "evaluation.json").write_text(json.dumps(content))
    if finished:
        accuracies = as_json({"natural": Accuracy(90, images), attack: Accuracy(correct, images)})
        stage = {"attack": "apgd-ce", "robust": 41, "total": 100, "forwards": 1234, "backwards": 9, "seconds": 0.5}
        found = {
            "images": images,
            "accuracies": accuracies,
            "cascades": {attack: [stage]},
            "audit": audit or FINDINGS,
        }
        (path / "result.json").write_text(json.dumps(found))
    return path


def undrawn(whether=True):
    """Context in which reports have blanks in place of figures, whose drawing takes longer than all else."""
    nothing = {**dict.fromkeys(("light", "dark"), "data:image/svg+xml;base64,"), "width": 1, "height": 1}
    return mock.patch("stcore.report.html.sources", return_value=nothing) if whether else contextlib.nullcontext()


@dataclass
class Tag:
    """An element as it was opened."""

    name: str
    attributes: dict


@dataclass
class Page(HTMLParser):
    """A page taken apart: its tables by caption as rows of texts, its tags, and all its text."""

    tables: list = field(default_factory=list)
    tags: list = field(default_factory=list)
    text: str = ""

    def __post_init__(self):
        super().__init__(convert_charrefs=True)
        self._open = []

    @classmethod
    def of(cls, path):
        page = cls()
        page.feed(path.read_text(encoding="utf-8"))
        page.close()
        page.text = " ".join(page.text.split())
        return page

    def table(self, caption):
        """The rows of the tables with this caption, their titles first, one after the other."""
        return [row for name, rows in self.tables if name.strip() == caption for row in rows]

    def all(self, name):
        return [tag.attributes for tag in self.tags if tag.name == name]

    def handle_starttag(self, tag, attrs):
        self.tags.append(Tag(tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "source"):
            self._open.append(tag)
        if tag == "table":
            self.tables.append(["", []])
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1].append("")

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data):
        if "style" in self._open:
            return
        self.text += data + " "
        if "caption" in self._open:
            self.tables[-1][0] += data
        elif self._open and ("td" in self._open or "th" in self._open):
            self.tables[-1][1][-1][-1] += data


def shown(score):
    """An accuracy of a result as a report shows it, from its counts."""
    low, high = Accuracy(score["correct"], score["total"]).interval()
    return f"{100 * score['correct'] / score['total']:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
