"""Several processes train one network: the numbers of one process, whatever becomes of any of them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from forked import Forked, forked
from harness import assert_close, assert_same, load, problem
from hypothesis import given
from hypothesis import strategies as st
from small import EAGER, SETTINGS, stcli, train, words

from stcore.base.ranks import pieces, shares
from stcore.base.weights_file import load_weights
from stcore.core.objective import Part, accumulated_step
from stcore.core.perturbation import AWP, RWP
from stcore.errors import UsageError
from stcore.methods.squeeze import SqueezeConfig

HERE = Path(__file__).parent
# 20 updates of up to 31 images, the last of 11: shares that are not equal.
RUN = [
    "train",
    *words(
        {
            "model": "factories:torch_group_norm",
            "dtype": "float64",
            "epochs": 1,
            "train_size": 600,
            "validation_size": 40,
            "test_size": 41,
            "batch_size": 31,
            "steps": 3,
            "threads": 1,
        }
    ),
]

TAUGHT = ("--teacher", "average", "--ema", 0.9)


def torchrun(*args, ranks=2, **more):
    launcher = [
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={ranks}",
        "--standalone",
    ]
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, *launcher, str(HERE / "ranked.py"), *map(str, args)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ranks(*args, count=2, **more):
    """The processes that torchrun would start, forked: the same environment, without its watch over them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    joint = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), **more}
    return [
        Forked(HERE / "ranked.py", *args, env={"RANK": str(rank), "LOCAL_RANK": str(rank), **joint})
        for rank in range(count)
    ]


def ended(*processes, code=0):
    """What the processes printed, all together; each is to end with this code."""
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), said
    return tuple(map("".join, zip(*said, strict=True)))


def alone(*args):
    return forked("-m", "stcore.cli.main", *args)[0]


def weights(run, name="last"):
    return load_weights(run / f"{name}.safetensors")[0]


def figures(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{n: v for n, v in row.items() if "second" not in n} for row in rows]


@given(st.integers(2, 500), st.integers(1, 9), st.integers(1, 9))
def test_the_pieces_of_a_batch_are_all_of_it_in_order(total, ranks, parts):
    cut = pieces(total, ranks, parts)
    assert len({len(own) for own in cut}) == 1
    places = [list(range(total))[part] for own in cut for part in own]
    joined = [place for part in places for place in part]
    assert joined == list(range(total)) * (ranks if total < 2 * ranks else 1)
    assert min(map(len, places)) >= 2
    smallest = min(own[0].stop - own[0].start for own in pieces(total, ranks))
    assert len(cut[0]) == max(1, min(parts, smallest // 2))
    assert sum(shares(cut)) == pytest.approx(1)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    load("torch")
    run = tmp_path_factory.mktemp("ranks") / "one"
    alone(*RUN, "--out", run)
    return run


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    load("torch")
    folder = tmp_path_factory.mktemp("ranks")
    out, _ = ended(torchrun(*RUN, "--save-every", 0, "--out", folder / "two", DUMPS=str(folder)))
    return folder / "two", out


def test_two_ranks_come_to_the_weights_of_one_process(one, two):
    run, out = two
    assert_close(weights(run), weights(one), 1e-10)
    for ours, theirs in zip(figures(run), figures(one), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)
    result, alone = (json.loads((it / "result.json").read_text())["checkpoints"] for it in (run, one))
    assert result == alone  # evaluated in two shares, one image apart
    assert out.count("everything is in") == 1


def test_replicas_are_equal_to_the_last_bit(two):
    dumps = [dict(np.load(two[0].parent / f"rank{rank}.npz")) for rank in (0, 1)]
    assert_same(*dumps)


def test_batch_norms_go_on_with_the_first_ranks_statistics(tmp_path):
    load("torch")
    run = ["train", *words({**SETTINGS, "batch_size": 20})]
    attacked = ["--steps", 1, "--attacks", "fgsm,apgd-ce"]
    ended(*ranks(*run, *attacked, "--ema", 0.9, "--out", tmp_path / "run", DUMPS=str(tmp_path)))
    dumps = [dict(np.load(tmp_path / f"rank{rank}.npz")) for rank in (0, 1)]
    assert_same(*dumps)
    assert any("running_var" in name and np.any(value != 1) for name, value in dumps[0].items())
    # The evaluation's two shards are put together as `stcli merge` would.
    result = json.loads((tmp_path / "run" / "result.json").read_text())["checkpoints"]["last"]
    (whole,) = (it for it in (tmp_path / "run" / "evaluations").iterdir() if "shard" not in it.name)
    merged = json.loads((whole / "best" / "result.json").read_text())
    assert merged["accuracies"]["apgd-ce"]["total"] == 32
    assert (
        merged["accuracies"]["apgd-ce"]
        == json.loads((tmp_path / "run" / "result.json").read_text())["checkpoints"]["best"]["apgd-ce"]
    )
    said = alone("evaluate", tmp_path / "run", "--attacks", "fgsm", "--checkpoint", "last", "--json")
    (scores,) = json.loads(said).values()
    assert scores["fgsm"]["correct"] == result["fgsm"]["correct"]


def test_more_ranks_than_images_evaluate_all_of_them(tmp_path):
    load("torch")
    run = ["train", *words({**SETTINGS, "train_size": 40, "validation_size": 2, "test_size": 2})]
    attacked = ["--steps", 1, "--attacks", "fgsm,apgd-ce"]
    ended(*ranks(*run, *attacked, "--out", tmp_path / "run", count=3))
    (row,) = figures(tmp_path / "run")
    assert row["pgd20_accuracy"] in (0, 0.5, 1)
    result = json.loads((tmp_path / "run" / "result.json").read_text())["checkpoints"]["last"]
    assert {name: one["total"] for name, one in result.items()} == {"natural": 2, "fgsm": 2, "apgd-ce": 2}
    folders = sorted(it.name.rpartition("-")[0] for it in (tmp_path / "run" / "evaluations").iterdir())
    assert folders == ["fgsm-apgd-ce", "fgsm-apgd-ce-shard-1-of-2", "fgsm-apgd-ce-shard-2-of-2"]


def test_a_rollback_is_that_of_all_ranks_and_resident_images_are_each_ranks_own(tmp_path):
    load("torch")
    run = ["train", *words({**SETTINGS, "batch_size": 20, "epochs": 3, "learning_rate": 1e30, "steps": 1})]
    options = ["--on-trouble", "rollback", "--resident", "on", "--ema", 0.9, "--out", tmp_path / "run"]
    out, err = ended(*ranks(*run, *options, DUMPS=str(tmp_path)), code=5)
    assert out.count("rollback 2 of 2, from epoch 1: back to the start") == 1
    assert len([line for line in err.splitlines() if line.startswith("stcli: ")]) == 1
    ended(*ranks(*run, *options[2:-1], tmp_path / "fine", "--learning-rate", 0.01, DUMPS=str(tmp_path)))
    assert_same(*(dict(np.load(tmp_path / f"rank{rank}.npz")) for rank in (0, 1)))


@pytest.mark.parametrize(
    "more",
    [
        ("--method", "gairat", "--begin-epoch", 1, "--rwp", 0.01, "--rwp-steps", 2),
        ("--method", "at", "--mixup", 0.4, "--cutmix", 1.0, "--augment", "trivial-augment", "--accumulate", 2),
        ("--method", "e-at", "--balls", "linf:0.3", "l1:3", "--epochs", 2, "--train-size", 126),
        # Two epochs, so that the class means of the first count; a last batch of two, which each rank takes whole.
        ("--method", "trades", "--divergence", "gkl", "--beta", 20, "--epochs", 2, "--train-size", 126),
        ("--method", "st", "--divergence", "gkl", "--epochs", 2, "--train-size", 95, "--accumulate", 2, *TAUGHT),
    ],
)
def test_what_is_meant_over_the_batch_is_meant_over_all_ranks(tmp_path, more):
    load("torch")
    run = [*RUN, *(() if "e-at" in more else ("--epsilon", 0.3)), "--train-size", 124, *more]
    ended(*ranks(*run, "--out", tmp_path / "two"))
    alone(*run, "--out", tmp_path / "one")
    assert_close(weights(tmp_path / "two"), weights(tmp_path / "one"), 1e-10)


def test_the_gradients_of_a_batch_in_parts_are_summed_over_the_ranks_once(tmp_path):
    load("torch")
    run = [*RUN, "--train-size", 124, "--steps", 1, "--awp", 0.01]
    ended(*ranks(*run, "--accumulate", 4, "--out", tmp_path / "two", COUNTS=str(tmp_path / "counts.npy")))
    alone(*run, "--out", tmp_path / "one")
    trained = weights(tmp_path / "one")
    assert_close(weights(tmp_path / "two"), trained, 1e-10)
    messages, size = np.load(tmp_path / "counts.npy"), sum(map(np.size, trained.values()))
    assert len(messages[messages >= size]) == 4 * 2  # four updates, each with one ascent


def test_a_weight_that_the_loss_of_no_rank_reaches_has_no_gradient(monkeypatch):
    torch = load("torch") and pytest.importorskip("torch")
    from stcore.backends.torch import ranks as torch_ranks

    model = torch.nn.ParameterList(torch.zeros(shape) for shape in ((2, 2), (3,), (1,)))
    learner = load("torch").learner(model)
    monkeypatch.setattr(torch_ranks.dist, "broadcast", lambda flat, source: None)
    joined = torch_ranks.RankedLearner(learner, torch_ranks.TorchRanks(0, 2))
    # The other rank's: none for the first weight, 1, 2, 3 for the second, none for the third.
    other = torch.tensor([0.0, 0, 0, 0, 1, 2, 3, 0, 0, 1, 0])
    monkeypatch.setattr(torch_ranks.dist, "all_reduce", lambda flat: flat.add_(other))
    first, second, third = joined.summed([torch.ones(2, 2), None, None])
    np.testing.assert_array_equal(first, np.ones((2, 2)))
    np.testing.assert_array_equal(second, (1, 2, 3))
    assert third is None


def test_killed_it_goes_on_with_as_many_ranks_or_fewer(two, tmp_path):
    both = ranks(*RUN, "--save-every", 0, "--out", tmp_path / "run")
    while not any(path.name >= "00000001-000007" for path in (tmp_path / "run" / "state").glob("*.safetensors")):
        assert all(process.poll() is None for process in both)
        time.sleep(0.02)
    for process in both:
        process.kill()
    ended(*both, code=-signal.SIGKILL)
    shutil.copytree(tmp_path / "run", tmp_path / "fewer")

    ended(*ranks("train", "--resume", tmp_path / "run"))
    assert_same(weights(tmp_path / "run"), weights(two[0]))
    assert figures(tmp_path / "run") == figures(two[0])

    said = alone("train", "--resume", tmp_path / "fewer")
    assert "begun with ranks = 2, and resumes with 1" in said
    assert_close(weights(tmp_path / "fewer"), weights(two[0]), 1e-10)


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        # Seven seconds of torchrun; the next test raises the same without it.
        pytest.param("raised", "rank 1 cannot read this", marks=pytest.mark.slow),
        ("killed", "another one is gone"),
    ],
)
def test_a_rank_that_fails_ends_the_job_with_one_message(tmp_path, fails, says):
    load("torch")
    _, err = ended(torchrun(*RUN, "--out", tmp_path / "run", FAILS=fails), code=1)
    ours = [line for line in err.splitlines() if line.startswith("stcli: ")]
    assert len(ours) == 1, err
    assert says in ours[0]


def test_without_torchrun_too_the_rank_that_failed_says_why(tmp_path):
    load("torch")
    both = ranks(*RUN, "--out", tmp_path / "run", FAILS="raised")
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [4, 3]
    ours = [line for one in said for line in one.splitlines() if line.startswith("stcli: ")]
    assert ours == ["stcli: rank 1: rank 1 cannot read this"]


@pytest.mark.slow  # eight seconds; that ranks agree to stop is asked at each step of the other tests too
def test_stopped_all_ranks_stop_after_the_same_step(tmp_path):
    load("torch")
    process = torchrun(*RUN, "--epochs", 60, "--out", tmp_path / "run")
    while not (tmp_path / "run" / "metrics.jsonl").is_file():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert "stopping after this step" in err
    assert any((tmp_path / "run" / "state").glob("*.safetensors"))
    assert "stcli train --resume" in out


def test_what_needs_one_process_says_so(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    said = stcli("evaluate", "run")
    assert said.code == 2
    assert "--shard" in said.err
    said = stcli("train", "--backend", "torch", "--seeds", "1,2")
    assert said.code == 2
    assert "torchrun" in said.err
    keras = load("keras")
    assert keras
    said = stcli("train", "--backend", "keras", "--model", "tiny")
    assert said.code == 2
    assert "torchrun" in said.err


def test_batch_norms_over_all_ranks_need_a_gpu():
    load("torch")
    from stcore.backends.torch import synchronised
    from stcore.models import build, export_weights

    model = build("tiny", "torch", num_classes=3, in_channels=1, image_size=(8, 8))
    with pytest.raises(UsageError, match="CUDA"):
        synchronised(model, "cpu")
    before = export_weights(model)
    assert_same(export_weights(synchronised(model, "cuda:0")), before)  # the weights are the same ones


# Gradient accumulation

PERTURBED = {"none": None, "awp": AWP(gamma=0.02), "rwp": RWP(gamma=0.02, steps=2, threshold=2.0)}


def without_batch_norm(backend):
    from importlib import import_module

    factories = import_module("factories")
    if backend.name == "torch":
        import torch

        torch.manual_seed(0)
        return factories.torch_group_norm(num_classes=3, in_channels=3, image_size=(8, 8)).double()
    import keras

    keras.utils.set_random_seed(0)
    return factories.keras_group_norm(num_classes=3, in_channels=3, image_size=(8, 8))


@pytest.mark.parametrize("perturbation", PERTURBED.values(), ids=PERTURBED)
def test_a_batch_in_parts_makes_the_update_of_the_whole(backend, perturbation):
    data, objective, after = problem(7), SqueezeConfig(steps=2), []
    x, y, noise = backend.batch(data)
    model = without_batch_norm(backend)
    start = None
    for places in ([slice(0, 7)], [slice(0, 2), slice(2, 4), slice(4, 7)]):
        learner = backend.learner(model)
        start = learner.snapshot() if start is None else start
        learner.restore(start)
        parts = []
        for where in places:
            share = backend.tensor(np.float64((where.stop - where.start) / 7))
            parts.append(Part(x[where], y[where], tuple(one[where] for one in noise), share))
        result = accumulated_step(learner, objective, parts, 0, perturbation)
        values = {name: array for name, array in learner.snapshot().items() if "random" not in name}
        after.append({**values, "loss": backend.array(result.loss)})
        after[-1] |= {f"metric/{n}": backend.array(m) for n, m in result.metrics.items()}
    keep = [{n: a for n, a in one.items() if a.dtype.kind == "f"} for one in after]
    assert_close(*keep, 1e-10)


def test_a_run_in_parts_sends_each_through_the_network(backend, tmp_path):
    runs = []
    for parts in (1, 2):
        out = tmp_path / str(parts)
        said = train(out, "--backend", backend.name, "--accumulate", parts, **EAGER)
        assert said.code == 0, said.err
        runs.append(weights(out))
    assert any(np.any(runs[0][name] != runs[1][name]) for name in runs[0])  # statistics of each part's own


def test_more_parts_than_pairs_of_images_are_refused(backend, tmp_path):
    said = train(tmp_path / "run", "--backend", backend.name, "--accumulate", 21)
    assert said.code == 2
    assert "at most 20 parts" in said.err
