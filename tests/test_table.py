"""`stcli table`: figures against scipy, its text against what it should be, on run folders made up for it."""

import csv
import io
import itertools
import json
import shutil
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from small import stcli, trained

from stcore.base.weights_file import save_weights
from stcore.results.tables.sheet import _LATEX, latex_text
from stcore.runs.evaluation_identity import fingerprint
from stcore.runs.folder import RunFolder
from stcore.runs.plan import make_plan

TOTAL = 1000
WEIGHTS = {"w": [1.0, 2.0]}


def scores(accuracies, total=TOTAL):
    return {attack: {"correct": round(share * total), "total": total} for attack, share in accuracies.items()}


def make_run(path, seed=0, best=0.5, last=0.4, *, natural=0.9, data="ab", total=TOTAL, device="cpu", **settings):
    """A finished run's folder; best, last: PGD-20's accuracies of the two checkpoints."""
    folder = RunFolder.create(path)
    plan = make_plan({"attacks": "pgd20", "seed": seed, **settings})
    folder.write_config(plan.flat())
    parts = {part: {"images": total, "sha256": f"{data}{part}"} for part in ("train", "test")}
    folder.write_json("environment.json", {"device": device, "data": parts})
    for seconds, speed in ((2.0, 100.0 + seed), (4.0, 50.0), (3.0, 75.0)):
        folder.append_metrics({"seconds": seconds, "images_per_second": speed})
    checkpoints = {"best": {"natural": natural, "pgd20": best}, "last": {"natural": natural, "pgd20": last}}
    result = {"checkpoints": {name: scores(one, total) for name, one in checkpoints.items()}}
    folder.write_json("result.json", result)
    save_weights(path / "best.safetensors", WEIGHTS, {})
    return path


def make_evaluation(run, attack="autoattack", correct=400, checkpoint="best", finished=True, **about):
    """An evaluation's folder in a run's."""
    path = run / "evaluations" / f"{attack}-{len(list(run.glob('evaluations/*')))}" / checkpoint
    path.mkdir(parents=True)
    plan = make_plan({})
    settings = {"epsilon": plan.evaluation.epsilon, "norm": plan.norm, "subset": None, "shard": None}
    settings |= {"backend": plan.runtime.backend, "dtype": plan.runtime.dtype, "seed": 0}
    settings |= {"weights": fingerprint(_arrays()), "data": "abtest", **about}
    (path / "evaluation.json").write_text(json.dumps(settings))
    if finished:
        accuracies = scores({"natural": 0.9}) | {attack: {"correct": correct, "total": TOTAL}}
        (path / "result.json").write_text(json.dumps({"accuracies": accuracies}))


def _arrays():
    import numpy as np

    return {name: np.asarray(values) for name, values in WEIGHTS.items()}


def table(*args):
    """The rows of the JSON, its notes, and what stderr says."""
    said = stcli("table", *args, "--format", "json")
    assert said.code == 0, said.err
    content = json.loads(said.out)
    return content["rows"], content["notes"], said.err


def t_interval(values):
    from scipy import stats

    mean = sum(values) / len(values)
    return pytest.approx(stats.t.interval(0.95, len(values) - 1, loc=mean, scale=stats.sem(values)))


def over_images(correct, total=TOTAL):
    from scipy import stats

    ends = stats.binomtest(correct, total).proportion_ci(0.95, method="exact")
    return pytest.approx([100 * ends.low, 100 * ends.high])


@pytest.fixture
def two_methods(tmp_path):
    """Three seeds of st, and one of at."""
    for seed, best, last in ((0, 0.40, 0.30), (10, 0.60, 0.45), (2, 0.50, 0.45)):
        make_run(tmp_path / f"st-{seed}", seed, best, last)
    make_run(tmp_path / "at", 0, 0.55, method="at")
    return tmp_path


# Figures


@pytest.mark.parametrize(("checkpoint", "values"), [("best", (40, 50, 60)), ("last", (30, 45, 45))])
def test_runs_that_differ_in_seed_alone_make_one_row_with_a_t_interval(two_methods, checkpoint, values):
    rows, notes, _ = table(two_methods, "--checkpoint", checkpoint)
    row = next(row for row in rows if row["settings"]["method"] == "st")
    assert row["seeds"] == [0, 2, 10]
    assert [path.rpartition("-")[2] for path in row["runs"]] == ["0", "2", "10"]
    figure = row["accuracies"]["pgd20"]
    assert figure["mean"] == pytest.approx(sum(values) / 3)
    assert figure["interval_95"] == t_interval(values)
    assert (figure["seeds"], figure["interval_over"]) == (3, "seeds")
    assert notes[0].startswith(f"{checkpoint} checkpoint, test split; mean ± 95 % t-interval over seeds; a single")


def test_a_single_run_has_its_interval_over_images_and_says_so(two_methods):
    (row,), notes, _ = table(two_methods / "at")
    figure = row["accuracies"]["pgd20"]
    assert figure["mean"] == pytest.approx(55)
    assert figure["interval_95"] == over_images(550)
    assert (figure["seeds"], figure["interval_over"]) == (1, "images")
    assert notes == [
        "best checkpoint, test split; a single run with its 95 % Clopper–Pearson interval [low, high] over images"
    ]


def test_costs_are_the_plans_passes_and_medians_over_all_epochs(two_methods):
    rows, _, _ = table(two_methods)
    assert {row["settings"]["method"]: row["passes"] for row in rows} == {"st": 60, "at": 23}
    assert {row["seconds_per_epoch"] for row in rows} == {3.0}
    assert {row["images_per_second"] for row in rows} == {75.0}


@pytest.mark.parametrize(
    ("other", "shown"),
    [
        ({"method": "at"}, "method"),
        ({"threads": 2}, "threads"),
        ({"device": "cuda"}, "device"),
        ({"dataset": "parquet:x", "preset": "digits"}, "dataset"),
        ({"init": "uniform"}, "init"),
        ({"init_weights": "w"}, "init_weights"),
        ({"awp": 0.005}, "awp"),
    ],
    ids=str,
)
def test_runs_that_differ_otherwise_are_not_averaged_and_the_difference_is_shown(tmp_path, other, shown):
    for seed, changes in enumerate(({}, other, {})):
        make_run(tmp_path / str(seed), seed, **changes)
    rows, _, _ = table(tmp_path)
    assert [row["seeds"] for row in rows] == [[0, 2], [1]]
    assert all(next(iter(row["settings"])) == shown for row in rows)


def test_equal_devices_are_one_setting(tmp_path):
    for seed in range(2):
        make_run(tmp_path / str(seed), seed, device=f"cuda:{seed}")
    assert [row["seeds"] for row in table(tmp_path)[0]] == [[0, 1]]


def test_a_config_of_an_earlier_version_is_completed(tmp_path):
    """A setting that is not written down has its default: no row of its own for it."""
    for seed in range(2):
        make_run(tmp_path / str(seed), seed)
    config = tmp_path / "1" / "config.toml"
    config.write_text("".join(line for line in config.open() if not line.startswith("nesterov")))
    assert [row["seeds"] for row in table(tmp_path)[0]] == [[0, 1]]


# What is shown, and in which order


def test_columns_can_be_named(tmp_path):
    make_run(tmp_path / "a", method="trades")
    make_run(tmp_path / "b", method="trades", awp=0.005)
    rows, _, _ = table(tmp_path, "--columns", "method,awp")
    assert [(row["settings"], row["passes"]) for row in rows] == [
        ({"method": "trades", "awp": None}, 30),
        ({"method": "trades", "awp": 0.005}, 39),
    ]
    said = stcli("table", tmp_path, "--columns", "method,epsilom")
    assert said.code == 2
    assert "columns: expected settings, such as backend,method,awp; received 'epsilom'" in said.err


@pytest.mark.parametrize(
    ("column", "methods"),
    [("pgd20", ["bat", "at", "st"]), ("passes", ["at", "bat", "st"]), ("method", ["at", "bat", "st"])],
)
def test_rows_can_be_sorted(tmp_path, column, methods):
    """Accuracies from the highest, all else from the lowest."""
    for method, best in (("st", 0.4), ("bat", 0.6), ("at", 0.5)):
        make_run(tmp_path / method, best=best, method=method)
    rows, _, _ = table(tmp_path, "--sort", column)
    assert [row["settings"]["method"] for row in rows] == methods


def test_what_is_missing_is_sorted_last(tmp_path):
    for number, awp in enumerate((None, 0.01, 0.005)):
        make_run(tmp_path / str(number), awp=awp)
    assert [row["settings"]["awp"] for row in table(tmp_path, "--sort", "awp")[0]] == [0.005, 0.01, None]
    said = stcli("table", tmp_path, "--sort", "cw100")
    assert said.code == 2
    assert "sort: expected one of the columns awp, seeds, natural, pgd20, passes, s/epoch, images/s" in said.err


# Notes


@pytest.mark.parametrize(
    ("other", "note"),
    [
        ({"data": "cd"}, "test data: 1000 test images (abtest) in row 1; 1000 test images (cdtest) in row 2"),
        ({"total": 500, "test_size": 500}, "test data: 1000 test images (abtest) in row 1; 500 test images"),
        ({"eval_epsilon": 0.1}, "the attacks' ε: linf ε = 0.2 in row 1; linf ε = 0.1 in row 2"),
        ({"select": "test"}, "the selection of the best epoch: pgd20 on val in row 1; pgd20 on test in row 2"),
    ],
    ids=lambda case: str(next(iter(case))) if isinstance(case, dict) else "",
)
def test_rows_that_do_not_compare_have_a_note(tmp_path, other, note):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", 1, **other)
    rows, notes, _ = table(tmp_path)
    assert len(rows) == 2  # and were not averaged
    (found,) = (one for one in notes if "not comparable" in one)
    assert found.startswith(f"not comparable: the rows differ in {note}")
    assert any("TEST split" in one for one in notes) == ("select" in other)
    comparable = [one for one in table(tmp_path / "a")[1] if "comparable" in one]
    assert comparable == []


def test_how_best_was_selected_does_not_touch_last(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", select="test")
    assert len(table(tmp_path, "--checkpoint", "last")[1]) == 1


def test_a_seed_that_is_there_twice_is_doubted(tmp_path):
    for name, seed in (("a", 0), ("b", 1), ("c", 1)):
        make_run(tmp_path / name, seed)
    (row,), notes, _ = table(tmp_path)
    assert row["seeds"] == [0, 1, 1]
    assert "row 1: seed 1 occurs more than once: not independent" in notes


# Which runs


def test_runs_are_found_by_folder_glob_and_name_each_once(two_methods, monkeypatch):
    by_name = table(*sorted(two_methods.iterdir()))[0]
    assert table(two_methods)[0] == by_name
    assert table(two_methods / "*")[0] == by_name
    assert table(two_methods, two_methods / "at", f"{two_methods}/s*")[0] == by_name
    monkeypatch.chdir(two_methods.parent)
    assert [row["seeds"] for row in table(two_methods.name)[0]] == [row["seeds"] for row in by_name]


def test_what_is_no_finished_run_is_left_out_and_said(two_methods):
    (two_methods / "st-0" / "result.json").unlink()
    (two_methods / "st-2" / "result.json").write_text("{")
    (two_methods / "st-10" / "metrics.jsonl").unlink()
    (two_methods / "empty").mkdir()
    (two_methods / "train.log").write_text("epoch 1")
    (row,), _, err = table(*sorted(two_methods.iterdir()))
    assert row["runs"] == [str(two_methods / "at")]
    lines = err.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("left out: ") for line in lines)
    unfinished = two_methods / "st-0"
    assert (
        f"left out: {unfinished} is unfinished after 3 epochs. To resume: stcli train --resume {unfinished}"
        in lines
    )
    for reason in (
        "result.json is missing or damaged",
        "metrics.jsonl is missing",
        "empty is no run",
        "train.log is no",
    ):
        assert reason in err


def test_a_checkpoint_that_a_run_does_not_have_is_said(two_methods):
    said = stcli("table", two_methods, "--checkpoint", "best-ema")
    assert (said.code, said.out) == (2, "")
    assert "at has no checkpoint best-ema; it has best, last" in said.err
    assert "expected at least one finished run" in said.err


@pytest.mark.parametrize(
    ("result", "metrics"),
    [({"checkpoints": []}, None), ({"checkpoints": {"best": {"natural": 0.5}}}, None), ({}, None), (None, "[]\n")],
)
def test_a_foreign_file_is_no_bug_of_ours(tmp_path, result, metrics):
    run = make_run(tmp_path / "run")
    if result is not None:
        (run / "result.json").write_text(json.dumps(result))
    if metrics is not None:
        (run / "metrics.jsonl").write_text(metrics)
    said = stcli("table", run)
    assert said.code == 2
    assert "is not as stcli train leaves it" in said.err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nowhere"], "runs: expected runs' folders, a folder of them or a glob; nowhere does not exist"),
        ([], "runs: expected at least one finished run; received none"),
        ([".", "--checkpoint", "first"], "checkpoint: expected one of best, last, best-ema, last-ema"),
        ([".", "--format", "html"], "format: expected one of markdown, csv, json, latex; received 'html'"),
    ],
)
def test_usage_errors(tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    said = stcli("table", *args)
    assert (said.code, said.out) == (2, "")
    assert message in said.err


def test_help_says_what_passes_are():
    said = stcli("table", "--help")
    assert (said.code, said.err) == (0, "")
    assert "usage: stcli table" in said.out
    assert "in forwards of the batch" in " ".join(said.out.replace("│", " ").split())


# Evaluations


def test_evaluations_stand_beside_the_runs_own_figures(tmp_path):
    runs = [make_run(tmp_path / str(seed), seed) for seed in range(3)]
    for seed, run in enumerate(runs):
        make_evaluation(run, correct=400 + 10 * seed, seed=seed)
    (row,), _, _ = table(tmp_path)
    assert list(row["accuracies"]) == ["natural", "pgd20"]
    (row,), notes, err = table(tmp_path, "--evaluations")
    assert list(row["accuracies"]) == ["natural", "pgd20", "autoattack"]
    assert row["accuracies"]["autoattack"]["interval_95"] == t_interval((40, 41, 42))
    assert (len(notes), err) == (1, "")


def test_an_evaluation_of_some_seeds_says_so(tmp_path):
    runs = [make_run(tmp_path / str(seed), seed) for seed in range(3)]
    make_evaluation(runs[0])
    (row,), notes, _ = table(tmp_path, "--evaluations")
    assert row["accuracies"]["autoattack"]["interval_95"] == over_images(400)
    assert "row 1: autoattack of 1 of 3 runs" in notes


@pytest.mark.parametrize(
    ("about", "name"),
    [
        ({}, "autoattack"),
        ({"epsilon": 0.1}, "autoattack (epsilon 0.1)"),
        ({"norm": "l2", "epsilon": 0.5}, "autoattack (epsilon 0.5, norm l2)"),
        ({"subset": "100:200", "backend": "keras"}, "autoattack (subset 100:200, backend keras)"),
        ({"seed": 7}, "autoattack (seed 7)"),
        ({"precision": "tf32"}, "autoattack (precision tf32)"),
    ],
    ids=str,
)
def test_an_attack_made_otherwise_has_a_column_of_its_own(tmp_path, about, name):
    run = make_run(tmp_path / "run")
    make_evaluation(run, **about)
    make_evaluation(run, "pgd20", 1)  # the run's own figure stands
    (row,), _, _ = table(run, "--evaluations")
    assert list(row["accuracies"]) == ["natural", "pgd20", name]
    assert row["accuracies"]["pgd20"]["mean"] == pytest.approx(50)


@pytest.mark.parametrize(
    ("about", "reason"),
    [
        ({"finished": False}, "is unfinished"),
        ({"shard": "1/2"}, "is shard 1/2. Merge the shards: stcli merge"),
        ({"weights": "0"}, "is of other weights than the run's"),
        ({"data": "0"}, "is of other test data than the run's"),
        ({"checkpoint": "last"}, None),
    ],
    ids=str,
)
def test_evaluations_of_something_else_are_left_out(tmp_path, about, reason):
    run = make_run(tmp_path / "run")
    make_evaluation(run, **about)
    (row,), _, err = table(run, "--evaluations")
    assert list(row["accuracies"]) == ["natural", "pgd20"]
    assert (reason in err) if reason else not err


# Text


@pytest.fixture
def golden(tmp_path):
    """Two seeds of st; one of at, on data with a name for every escape."""
    for seed, best in ((0, 0.40), (1, 0.42)):
        make_run(tmp_path / f"st-{seed}", seed, best, threads=1)
    make_run(tmp_path / "at", 3, 0.55, method="at", dataset="npz:a|b_50%&[#1]*", preset="digits", threads=1)
    return tmp_path


ARGS = ("--columns", "method,dataset", "--sort", "method")
NOTE = (
    "best checkpoint, test split; mean ± 95 % t-interval over seeds; a single run with its 95 % Clopper–Pearson "
    "interval [low, high] over images"
)


def test_markdown(golden):
    assert stcli("table", golden, *ARGS).out == (
        "| method | dataset | seeds | natural % | pgd20 % | passes | s/epoch | images/s |\n"
        "|---|---|---|---:|---:|---:|---:|---:|\n"
        r"| at | npz:a\|b_50%&[#1]\* | 3 | 90.00 [87.97, 91.79] | 55.00 [51.86, 58.11] | 23 | 3 | 75 |"
        "\n"
        "| st | digits | 0, 1 | 90.00 ± 0.00 | 41.00 ± 12.71 | 60 | 3 | 75 |\n"
        f"\n- {NOTE}\n"
    )


def test_latex(golden):
    note = (
        NOTE.replace("±", r"$\pm$")
        .replace("%", r"\%")
        .replace("–", r"\textendash{}")
        .replace("[low, high]", "{[}low, high{]}")
    )
    assert stcli("table", golden, *ARGS, "--format", "latex").out == (
        "% needs \\usepackage{booktabs}\n"
        "\\begin{tabular}{lllrrrrr}\n"
        "\\toprule\n"
        r"method & dataset & seeds & natural \% & pgd20 \% & passes & s/epoch & images/s \\"
        "\n\\midrule\n"
        r"at & npz:a\textbar{}b\_50\%\&{[}\#1{]}{*} & 3 & 90.00 {[}87.97, 91.79{]} & 55.00 {[}51.86, 58.11{]} "
        r"& 23 & 3 & 75 \\"
        "\n"
        r"st & digits & 0, 1 & 90.00 $\pm$ 0.00 & 41.00 $\pm$ 12.71 & 60 & 3 & 75 \\"
        "\n\\bottomrule\n\\end{tabular}\n"
        f"\\par{{\\footnotesize {note}\\par}}\n"
    )


def test_csv(golden):
    said = stcli("table", golden, *ARGS, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert said.out.splitlines()[0] == (
        "method,dataset,seeds,natural %,natural low %,natural high %,natural seeds,"
        "pgd20 %,pgd20 low %,pgd20 high %,pgd20 seeds,passes,s/epoch,images/s"
    )
    assert [row["dataset"] for row in rows] == ["npz:a|b_50%&[#1]*", "digits"]
    assert [row["seeds"] for row in rows] == ["3", "0, 1"]
    assert [row["pgd20 seeds"] for row in rows] == ["1", "2"]
    ends = [[float(row["pgd20 low %"]), float(row["pgd20 high %"])] for row in rows]
    assert ends == [over_images(550), t_interval((40, 42))]
    assert NOTE in said.err


def test_json(golden):
    content = json.loads(stcli("table", golden, *ARGS, "--format", "json").out)
    figure = {
        "mean": pytest.approx(90),
        "interval_95": pytest.approx([90, 90]),
        "seeds": 2,
        "interval_over": "seeds",
    }
    pgd20 = {"mean": pytest.approx(41), "interval_95": t_interval((40, 42)), "seeds": 2, "interval_over": "seeds"}
    assert content == {
        "checkpoint": "best",
        "notes": [NOTE],
        "rows": [
            content["rows"][0],
            {
                "settings": {"method": "st", "dataset": "digits"},
                "runs": [str(golden / "st-0"), str(golden / "st-1")],
                "seeds": [0, 1],
                "accuracies": {"natural": figure, "pgd20": pgd20},
                "passes": 60,
                "seconds_per_epoch": 3.0,
                "images_per_second": 75.0,
            },
        ],
    }


def test_markdown_is_read_as_it_was_meant(golden):
    """By a parser of it: a row has as many cells as the title, and the cells say what the settings are."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(stcli("table", golden, *ARGS).out)
    cells = [
        "".join(child.content for child in token.children)
        for before, token in itertools.pairwise(tokens)
        if before.type in ("th_open", "td_open")
    ]
    assert len(cells) == 3 * 8
    assert cells[8:11] == ["at", "npz:a|b_50%&[#1]*", "3"]
    assert tokens[-1].type == "bullet_list_close"


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"])))
@example("\\{}~^_%$#&<>|[]* a---b")
def test_no_special_character_of_latex_is_left(text):
    """Taking the escapes away gives the text again, and nothing that LaTeX would obey stands outside of them."""
    escapes = [("-{}", "-"), *((new, chr(old)) for old, new in _LATEX.items())]
    back, rest = "", latex_text(text)
    assert "--" not in rest
    while rest:
        new, old = next((pair for pair in escapes if rest.startswith(pair[0])), (rest[0], rest[0]))
        assert new != old or old not in "\\{}~^_%$#&<>|[]*"
        back, rest = back + old, rest[len(new) :]
    assert back == text


def test_runs_as_stcli_leaves_them():
    run = trained("torch")
    said = stcli("table", run.path)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("| seeds | natural % | fgsm % | pgd20 % | passes | s/epoch | images/s |\n")
    (row,), _, _ = table(run.path)
    best = run.json("result.json")["checkpoints"]["best"]
    for attack, score in best.items():
        assert row["accuracies"][attack]["mean"] == pytest.approx(100 * score["accuracy"])
        assert row["accuracies"][attack]["interval_95"] == pytest.approx(
            [100 * end for end in score["interval_95"]]
        )


# The paper's style


@pytest.fixture
def papers(tmp_path):
    """Seven seeds of a row's preset, two of TRADES with and one without AWP."""
    for seed in range(7):
        make_run(tmp_path / f"st-{seed}", seed, 0.50 + seed / 100, preset="table1/cifar10/st")
    for seed in range(2):
        trades = {"dataset": "cifar10", "method": "trades", "epsilon": 8 / 255, "threads": 1}
        make_run(tmp_path / f"awp-{seed}", seed, 0.60, awp=0.005, natural=0.8, **trades)
    make_run(tmp_path / "trades", 0, 0.45, natural=0.95, **trades)
    return tmp_path


def test_the_papers_style_in_markdown(papers):
    """Means and intervals as everywhere else; the best of each column in bold; the paper's row below ours."""
    said = stcli("table", papers, "--style", "paper", "--sort", "pgd20")
    assert (said.code, said.err) == (0, "")
    low, high = t_interval([50, 51, 52, 53, 54, 55, 56]).expected
    ends = over_images(450).expected
    natural = over_images(950).expected
    caption, blank, *lines = said.out.splitlines()
    assert lines[:7] == [
        "| Method | Natural | PGD-20 |",
        "|---|---:|---:|",
        "| TRADES+AWP | 80.00 ± 0.00 | **60.00 ± 0.00** |",
        f"| ST | 90.00 ± 0.00 | 53.00 ± {(high - low) / 2:.2f} |",
        "| – as printed | 83.10 ± 0.10 | 54.62 ± 0.14 |",
        f"| TRADES | **95.00 [{natural[0]:.2f}, {natural[1]:.2f}]** | 45.00 [{ends[0]:.2f}, {ends[1]:.2f}] |",
        "",
    ]
    assert blank == ""
    assert caption == (
        "Accuracy in % on the test split of CIFAR-10; ResNet-18; l∞, ε = 8/255; best checkpoint; 1 or 2 or 7 "
        "seeds; mean ± 95 % t-interval over seeds; a single run with its 95 % Clopper–Pearson interval [low, "
        "high] over images. The best of each column is in bold."
    )
    assert "- ST as printed: table1/cifar10/st; not comparable: " in said.out  # 1000 images are not the test split


def test_the_papers_style_as_csv_and_json(papers):
    said = stcli("table", papers, "--style", "paper", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [(row["method"], row["source"]) for row in rows] == [
        ("TRADES+AWP", "runs"),
        ("ST", "runs"),
        ("ST", "table1/cifar10/st"),
        ("TRADES", "runs"),
    ]
    assert [float(rows[2][f"pgd20{part} %"]) for part in ("", " low", " high")] == [54.62, 54.48, 54.76]
    assert [float(rows[1][f"pgd20{part} %"]) for part in (" low", " high")] == t_interval(range(50, 57))
    assert "not comparable" in said.err

    content = json.loads(stcli("table", papers, "--style", "paper", "--format", "json").out)
    assert [row["best"] for row in content["rows"]] == [["pgd20"], [], ["natural"]]
    assert [row["paper"] and row["paper"]["preset"] for row in content["rows"]] == [
        None,
        "table1/cifar10/st",
        None,
    ]
    assert content["rows"][1]["paper"]["accuracies"]["pgd20"] == {"mean": 54.62, "half_width": 0.14}
    assert any("data:" in reason for reason in content["rows"][1]["paper"]["not_comparable"])
    assert content["caption"].startswith("Accuracy in % on the test split of CIFAR-10")


def test_a_row_is_best_among_several_alone_and_ties_are_all_best(tmp_path):
    make_run(tmp_path / "a", best=0.5)
    assert "**" not in stcli("table", tmp_path, "--style", "paper").out
    make_run(tmp_path / "b", best=0.5, natural=0.8, method="trades")
    assert stcli("table", tmp_path, "--style", "paper").out.count("**50.00 [46.85, 53.15]**") == 2


@pytest.mark.parametrize("other", [{"data": "cd"}, {"eval_epsilon": 0.1}])
def test_nothing_is_best_of_what_does_not_compare(tmp_path, other):
    make_run(tmp_path / "a", best=0.5)
    make_run(tmp_path / "b", best=0.6, method="trades", **other)
    said = stcli("table", tmp_path, "--style", "paper").out
    assert "**" not in said
    assert "in bold" not in said
    assert "- not comparable: the rows differ in" in said


def test_the_papers_row_is_of_its_own_checkpoint(papers):
    assert "as printed" not in stcli("table", papers, "--style", "paper", "--checkpoint", "last").out


def test_settings_are_columns_only_where_methods_are_called_alike(tmp_path):
    for beta in (2.0, 6.0):
        make_run(tmp_path / f"st-{beta}", beta=beta)
    make_run(tmp_path / "at", method="at", batch_size=64)
    title = stcli("table", tmp_path, "--style", "paper").out.splitlines()[2]
    assert title == "| Method | beta | Natural | PGD-20 |"
    title = stcli("table", tmp_path, "--style", "paper", "--columns", "method,batch_size").out.splitlines()[2]
    assert title == "| Method | batch_size | Natural | PGD-20 |"


def test_attacks_stand_in_the_papers_order(tmp_path):
    make_run(tmp_path / "a")
    for attack, about in (("autoattack", {}), ("cw100", {}), ("square", {}), ("autoattack", {"subset": 100})):
        make_evaluation(tmp_path / "a", attack, **about)
    title = stcli("table", tmp_path, "--style", "paper", "--evaluations").out.splitlines()[2]
    assert title == "| Method | Natural | PGD-20 | C&W | AA | AA (subset 100) | square |"


def test_latex_in_the_papers_style(papers):
    """Balanced, with as many cells in each row as there are columns, and bold where Markdown is."""
    said = stcli("table", papers, "--style", "paper", "--format", "latex").out
    lines = said.splitlines()
    assert lines[0] == "% needs \\usepackage{booktabs}"
    begun = [line for line in lines if line.startswith("\\begin")]
    assert begun == ["\\begin{table}", "\\begin{tabular}{lrr}"]
    assert [line for line in lines if line.startswith("\\end")] == ["\\end{tabular}", "\\end{table}"]
    rows = [line for line in lines if line.endswith(r" \\")]
    assert len(rows) == 5
    assert {line.count(" & ") for line in rows} == {2}
    assert said.count("{") == said.count("}")
    assert r"\textbf{60.00 $\pm$ 0.00}" in said
    assert r"\textendash{} as printed & 83.10 $\pm$ 0.10 & 54.62 $\pm$ 0.14 \\" in said
    assert r"$\ell$$_\infty$, $\varepsilon$ = 8/255" in said
    assert said.isascii()


@pytest.mark.parametrize("style", ["runs", "paper"])
def test_latex_compiles(papers, tmp_path, style):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    table = stcli("table", papers, "--style", style, "--format", "latex").out
    text = f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{table}\\end{{document}}\n"
    (tmp_path / "t.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout[-2000:]
