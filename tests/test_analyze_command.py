"""`stcli analyze` on networks: what it writes, what it says, and what it refuses."""

import csv
import importlib.util
import json
import sys

import numpy as np
import pytest
from harness import NAMES, load
from small import contents, stcli, trained, words
from terminal import on_a_terminal

from stcore.analysis import collaborative
from stcore.analysis.registry import ANALYSES
from stcore.base.weights_file import load_weights
from stcore.cli.analyze import as_table
from stcore.cli.analyze_options import OPTIONS
from stcore.runs.evaluation_identity import fingerprint

pytest.importorskip("matplotlib")
torch = pytest.importorskip("torch")

ON_EACH = pytest.mark.parametrize("backend", NAMES)
QUICK = {
    "collaborative": {"subset": 6, "steps": 3, "budgets": "0.05,0.1"},
    "examples": {"classes": 2, "steps": 3},
    "landscape": {"subset": 4, "steps": 3, "grid": 3},
    "angles": {"subset": 6, "steps": 3},
}


def analyze(what, *args, **settings):
    return stcli("analyze", what, *args, *words({**QUICK[what], **settings}))


def rows_of(folder, what):
    with (folder / f"{what}.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def record_of(folder, what):
    return json.loads((folder / f"{what}.json").read_text())


@pytest.fixture
def unsaved(monkeypatch):
    """Figures are not rendered, which takes longer than the tiny networks' numbers."""
    monkeypatch.setattr("stcore.figures.style.save", lambda figure, path, formats: [])


@pytest.mark.parametrize("what", QUICK)
def test_the_figure_and_its_numbers_are_written(what, tmp_path):
    run = trained("torch")
    said = analyze(what, run.path, out=tmp_path / "new" / "here", formats="png,svg,pdf")
    assert (said.code, said.err) == (0, "")
    folder = tmp_path / "new" / "here"
    names = [f"{what}.{kind}" for kind in ("csv", "json", "pdf", "png", "svg")]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert all(str(folder / name) in said.out for name in names)
    assert all(name.replace("_", " ") in said.out for name in TABLES[what][0])
    starts = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}
    assert all((folder / f"{what}.{kind}").read_bytes().startswith(start) for kind, start in starts.items())
    record = record_of(folder, what)
    assert (record["analysis"], record["figure"]) == (what, ANALYSES[what].figure)
    (about,) = record["checkpoints"].values()
    weights = run.path / "best.safetensors"
    assert about["weights"] == fingerprint(load_weights(weights)[0])
    assert (about["file"], about["method"], about["backend"]) == (str(weights), "st", "torch")
    assert about["versions"]["torch"] == torch.__version__
    assert record["settings"]["steps"] == 3
    rows = rows_of(folder, what)
    if "rows" in record:  # the same numbers in both
        assert [{name: "" if v is None else str(v) for name, v in row.items()} for row in record["rows"]] == rows
    else:
        assert [float(row["loss"]) for row in rows] == np.ravel(record["surfaces"][0]["loss"]).tolist()


LONG = "a-name-that-is-longer-than-most"
TABLES = {
    "angles": [
        {
            "model": LONG,
            "step": step,
            "images": 10000,
            "mean ± deviation": (178.31, 12.342),
            "median [quartiles]": (179.42, 178.53, 179.94),
            "median_off_border": 179.1234,
            "undefined": 1234,
        }
        for step in (1, 20)
    ],
    "robustness-curve": [
        {
            "network": LONG,
            "attack": "sigma-zero",
            "images": 10000,
            "natural": 0.98765,
            "median_norm": norm,
            "without_example": 1234,
        }
        for norm in (0.031372549, None)
    ],
    "collaborative": [
        {
            "model": LONG,
            "budget": 0.031372549,
            "loss": 1.2345e-05,
            "loss_deviation": 2.3456e-05,
            "accuracy": 0.98765,
            "images": 10000,
        }
    ],
    "examples": [
        {
            "image": 9999,
            "label": "automobile",
            "model": LONG,
            "kind": "collaborative",
            "loss": 1.2345e-05,
            "predicted": "aeroplane",
            "largest_change": 0.031372549,
        }
    ],
    "landscape": [
        {
            "model": LONG,
            "images": 10000,
            "undefined": 1234,
            "length_of_u": 1.2345e-05,
            "lowest": 2.3456e-05,
            "highest": 12345.6789,
        }
    ],
    "curves": [
        {
            "run": LONG,
            "epochs": 120,
            "natural": 0.81234,
            "robust": 0.51234,
            "highest robust": 0.5432,
            "in epoch": 118,
        }
    ],
    "losses": [{"run": LONG, "epoch": 120, "natural": 1.2345e-05, "adversarial": 2.3456, "collaborative": None}],
    "ratio": [{"run": LONG, "epochs": 120, "first": 0.12345, "highest": 0.98765, "last": 0.54321}],
    "tradeoff": [
        {
            "line": LONG,
            "divergence": "squared l2 of the logits",
            "beta": 6.0,
            "natural": 0.81234,
            "robust": 0.51234,
            "seeds": 3,
            "pareto_optimal": True,
            "source": "paper",
        }
    ],
}


@pytest.mark.parametrize("what", ANALYSES)
def test_no_figure_is_cut_off_on_a_terminal(what):
    cells = on_a_terminal(as_table(TABLES[what]))
    for row in TABLES[what]:
        assert row.keys() == TABLES[what][0].keys()
        for value in row.values():
            if isinstance(value, str):  # which may be folded
                continue
            first, *around = value if isinstance(value, tuple) else (value,)
            assert ("–" if first is None else f"{first:.4g}" if isinstance(first, float) else str(first)) in cells
            bounds = [f"{one:.4g}" for one in around]
            below = {0: None, 1: f"± {', '.join(bounds)}", 2: f"[{', '.join(bounds)}]"}[len(bounds)]
            assert below is None or below in cells


def test_the_terminal_s_angles_are_those_of_the_file(tmp_path, unsaved):
    said = analyze("angles", trained("torch").path, out=tmp_path)
    rows = rows_of(tmp_path, "angles")
    assert rows[0].keys() > {"mean", "deviation", "quartile1", "median", "quartile3", "median_off_border"}
    line = next(line for line in said.out.splitlines() if line.startswith("│ torch"))
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    number = {name: f"{float(value):.4g}" for name, value in rows[0].items() if name != "model" and value}
    assert cells[3:5] == [
        f"{number['mean']} ± {number['deviation']}",
        f"{number['median']} [{number['quartile1']}, {number['quartile3']}]",
    ]


@pytest.mark.parametrize("what", QUICK)
def test_a_run_of_one_backend_is_analysed_by_the_other_alike(what, tmp_path, unsaved):
    load("keras")
    found = {}
    for backend in NAMES:
        said = analyze(what, trained("torch").path, out=tmp_path, backend=backend, dtype="float64")
        assert said.code == 0, said.err
        assert record_of(tmp_path, what)["checkpoints"]["torch"]["backend"] == backend
        found[backend] = rows_of(tmp_path, what)
    for one, other in zip(found["torch"], found["keras"], strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            try:
                expected = float(value)
            except ValueError:
                assert other[name] == value
            else:
                assert float(other[name]) == pytest.approx(expected, rel=1e-7, abs=1e-7), name


@ON_EACH
def test_several_runs_by_their_names(backend, tmp_path, unsaved):
    run = trained(backend).path
    said = analyze("angles", run, run / "last.safetensors", out=tmp_path, names="one,two", dataset="digits")
    assert said.code == 0, said.err
    record = record_of(tmp_path, "angles")
    assert list(record["checkpoints"]) == ["one", "two"]
    assert record["checkpoints"]["two"]["weights"] == fingerprint(load_weights(run / "last.safetensors")[0])
    assert {row["model"] for row in record["rows"]} == {"one", "two"}
    assert "one" in said.out


def test_settings_go_by_the_runs_epsilon(tmp_path, unsaved):
    """The digits' is 0.2."""
    run = trained("torch").path
    assert stcli("analyze", "collaborative", run, "--subset", 2, "--steps", 1, "--out", tmp_path).code == 0
    settings = record_of(tmp_path, "collaborative")["settings"]
    assert settings["budgets"] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    assert settings["step_size"] == pytest.approx(0.025)
    assert analyze("angles", run, out=tmp_path, epsilon="16/255").code == 0
    settings = record_of(tmp_path, "angles")["settings"]
    assert (settings["epsilon"], settings["step_size"]) == pytest.approx((16 / 255, 2 / 255))


def test_which_images(tmp_path, unsaved):
    run = trained("torch").path
    assert stcli("analyze", "examples", run, "--images", "7,3", "--steps", 3, "--out", tmp_path).code == 0
    assert [row["image"] for row in rows_of(tmp_path, "examples")[::3]] == ["7", "3"]
    drawn = []
    for seed in (0, 0, 1, 2, 3):
        analyze("examples", run, out=tmp_path, seed=seed, steps=1)
        drawn.append([(row["image"], row["label"]) for row in rows_of(tmp_path, "examples")[::3]])
    assert drawn[0] == drawn[1]
    assert len({str(one) for one in drawn}) > 1
    assert [label for _, label in drawn[2]] == ["0", "1"]
    several = stcli(
        "analyze", "landscape", run, "--images", "7,3", *words({"grid": 2, "steps": 1}), "--out", tmp_path
    )
    assert several.code == 0
    assert record_of(tmp_path, "landscape")["surfaces"][0]["images"] == 2
    stcli("analyze", "angles", run, "--steps", 1, "--out", tmp_path)
    assert record_of(tmp_path, "angles")["rows"][0]["images"] == 32  # fewer than the usual 1000


def test_a_dark_ground(tmp_path):
    from PIL import Image

    for flag, shade in ((), 255), (("--dark",), 40):
        assert analyze("angles", trained("torch").path, *flag, out=tmp_path).code == 0
        corner = Image.open(tmp_path / "angles.png").convert("L").getpixel((0, 0))
        assert (corner == 255) if shade == 255 else (corner < shade)


@pytest.mark.parametrize(
    ("words_", "said"),
    [
        (["nothing", "RUN"], "what: expected one of collaborative"),
        (["angles"], "run: expected at least one"),
        (["angles", "RUN", "--budgets", "0.1"], "budgets"),
        (["collaborative", "RUN", "--grid", "3"], "grid"),
        (["examples", "RUN", "--subset", "3"], "subset"),
        (["angles", "RUN", "--formats", "gif"], "formats: expected one of png, svg, pdf; received 'gif'"),
        (["angles", "RUN", "--names", "a,b"], "names: expected 1, one for each run"),
        (["angles", "RUN", "RUN", "--names", "a,a"], "all different"),
        (["angles", "RUN", "RUN"], "received one twice"),
        (["angles", "RUN", "--checkpoint", "best-ema"], "best-ema.safetensors"),
        (["angles", "RUN", "--checkpoint", "first"], "checkpoint: expected one of best, last"),
        (["angles", "RUN/nowhere"], "expected a folder with config.toml"),
        (["angles", "RUN/last.safetensors"], "dataset: expected the data to evaluate a weights file on"),
        (["angles", "RUN", "--subset", "9999"], "test images; received '9999'"),
        (["angles", "RUN", "--steps", "0"], "steps: expected a whole number of at least 1"),
        (["angles", "RUN", "--backend", "jax"], "backend: expected one of torch, keras"),
        (
            ["landscape", "RUN", "--images", "3", "--subset", "4"],
            "subset, images: expected at most one of the two",
        ),
        (["examples", "RUN", "--images", "3,32"], "images: expected indices of the test split, 0 to 31"),
        (["examples", "RUN", "--images", "3,3"], "each once"),
        (["examples", "RUN", "--images", "3", "--classes", "2"], "classes, images: expected at most one"),
        (["examples", "RUN", "--images", "3", "--seed", "2"], "seed, images: expected at most one"),
        (["examples", "RUN", "--classes", "0"], "classes: expected a whole number of at least 1"),
    ],
)
def test_what_is_refused(words_, said, tmp_path):
    given = [word.replace("RUN", str(trained("torch").path)) for word in words_]
    found = stcli("analyze", *given, "--out", tmp_path / "out")
    assert found.code == 2, found
    assert said in found.err
    assert not (tmp_path / "out").exists()


def test_runs_of_several_radii_need_one(tmp_path, unsaved):
    run = trained("torch")
    (tmp_path / "other").mkdir()
    config = (run.path / "config.toml").read_text()
    assert "eval_epsilon = 0.2" in config
    (tmp_path / "other" / "config.toml").write_text(config.replace("eval_epsilon = 0.2", "eval_epsilon = 0.1"))
    (tmp_path / "other" / "best.safetensors").write_bytes((run.path / "best.safetensors").read_bytes())
    said = analyze("angles", run.path, tmp_path / "other", out=tmp_path / "out")
    assert said.code == 2
    assert "epsilon: expected one, as the runs have several: linf 0.1, linf 0.2" in said.err
    assert analyze("angles", run.path, tmp_path / "other", out=tmp_path / "out", epsilon=0.1).code == 0
    assert analyze("collaborative", run.path, tmp_path / "other", out=tmp_path / "out").code == 0  # by --budgets


def test_ctrl_c_leaves_what_was_there(tmp_path, monkeypatch):
    run = trained("torch").path
    assert analyze("collaborative", run, out=tmp_path).code == 0
    before = contents(tmp_path)

    def stopped(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(collaborative, "cross_entropies", stopped)
    said = analyze("collaborative", run, out=tmp_path)
    assert (said.code, said.err) == (130, "stcli: interrupted\n")
    assert contents(tmp_path) == before


def test_without_matplotlib_it_says_so_before_it_computes(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("stcore.figures")]:
        monkeypatch.delitem(sys.modules, name)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else found(name, *rest)
    )
    said = stcli("analyze", "angles", tmp_path / "no-run", "--out", tmp_path / "out")
    assert said.code == 2
    assert "pip install '.[plots]'" in said.err


def test_help():
    said = stcli("analyze", "--help")
    assert said.code == 0
    assert all(f"{name} " in said.out and it.what in said.out for name, it in ANALYSES.items())
    assert stcli("analyze").code == 2
    assert stcli("analyze", "angles", "--help").code == 0


def test_every_analysis_has_its_options():
    assert OPTIONS.keys() == ANALYSES.keys()
