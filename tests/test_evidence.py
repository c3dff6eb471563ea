"""Evidence: exact differences, a seal over every byte, and replays that confirm what is so and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from harness import NAMES, load
from hypothesis import given
from hypothesis import strategies as st
from small import _folders, stcli, words
from test_cli_evaluate import sound

import stcore
from stcore.base.files import read_arrays, write_arrays
from stcore.base.weights_file import load_weights, save_weights
from stcore.data import ImageData, load_digits
from stcore.errors import DataError, UsageError
from stcore.evidence import read, write
from stcore.evidence.building import from_evaluation, restored
from stcore.evidence.code import code
from stcore.evidence.differences import decode, encode
from stcore.evidence.file import image_digest
from stcore.evidence.replaying import replay as replay_on

torch = pytest.importorskip("torch")

ON_EACH = pytest.mark.parametrize("backend", NAMES)
SETTINGS = {"attacks": "fgsm,apgd-ce+apgd-t", "epsilon": 0.05, "subset": "4:28", "checkpoint": "best"}
ZOO = "zoo:digits-small-cnn-st"


def evaluation(dtype="float32"):
    """The folder of an evaluation that kept its examples, in its run's folder."""
    return _evaluated(dtype)


@cache
def _evaluated(dtype):
    run = Path(shutil.copytree(sound(), Path(_folders.name) / f"evidence-{dtype}"))
    said = stcli("evaluate", run, "--save-examples", "--no-audit", *words({**SETTINGS, "dtype": dtype}))
    assert said.code == 0, said.err
    (folder,) = (run / "evaluations").glob("*/best")
    return folder


def sealed(dtype="float32"):
    """Its evidence, written by the command, with the weights."""
    return _sealed(dtype)


@cache
def _sealed(dtype):
    file = Path(_folders.name) / f"{dtype}.stev"
    said = stcli("evidence", evaluation(dtype).parents[2], "--with-weights", "--out", file)
    assert (said.code, said.err) == (0, "")
    return file


def run_of():
    return evaluation().parents[2]


def digits():
    return load_digits().test


def classifier(backend="torch", file=None):
    load(backend)
    return stcore.make_classifier(stcore.load(run_of(), backend=backend).model)


# Exact differences

NUMBERS = st.one_of(
    st.floats(width=32), st.floats(0, 1, width=32), st.sampled_from([0.0, -0.0, float("nan"), float("inf"), 1e-45])
)


@given(
    st.lists(st.tuples(NUMBERS, st.integers(0, 255)), min_size=1, max_size=40),
    st.sampled_from(["float32", "float64"]),
)
def test_any_pixels_return_bit_for_bit(pairs, dtype):
    points = np.array([[p] for p, _ in pairs], dtype)
    images = np.array([[i] for _, i in pairs], np.uint8)
    again = decode(encode(points, images), images, dtype)
    assert again.dtype == points.dtype
    assert again.tobytes() == points.tobytes()


def test_adversarial_images_take_a_fraction_of_their_bytes():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 16, 16, 3), np.uint8)
    x = images.astype(np.float32) / np.float32(255)
    points = np.clip(x + np.float32(8 / 255) * rng.choice([-1, 1], x.shape).astype(np.float32), 0, 1)
    assert len(encode(points, images)) < 0.5 * points.nbytes


@pytest.mark.parametrize(
    "change",
    [lambda it: it[:-5], lambda it: it[:0], lambda it: encode(np.zeros((9, 4), "f"), np.zeros((9, 4), np.uint8))],
)
def test_differences_of_another_length_are_refused(change):
    images = np.zeros((3, 4), np.uint8)
    packed = encode(np.full((3, 4), 0.5, np.float32), images)
    with pytest.raises(DataError, match="differences"):
        decode(change(packed), images, "float32")


# What the file holds


def test_the_file_holds_what_the_evaluation_found():
    """By the evaluation's own files, read by numpy alone."""
    evidence, folder = read(sealed()), evaluation()
    records, test = read_arrays(folder / "records.npz"), digits()
    label, natural = records["label"], records["predicted/natural"]
    names = list(json.loads((folder / "evaluation.json").read_text())["attacks"])
    fooled = natural != label
    for name in names:
        fooled |= records[f"predicted/{name}"] != label
    position = records["position"]
    assert position.tolist() == list(range(4, 28))
    np.testing.assert_array_equal(evidence.evaluated, position)
    assert set(evidence.row.tolist()) == set(position[fooled].tolist())
    assert evidence.at_most.correct == (~fooled).sum()
    kept = {name: read_arrays(folder / f"{name}-examples.npz") for name in names}
    points = restored(evidence, test)
    assert points.dtype == np.float32
    for i, (row, attack) in enumerate(zip(evidence.row.tolist(), evidence.names, strict=True)):
        at = int(np.flatnonzero(position == row)[0])
        pixels = test.images[row].astype(np.float32) / np.float32(255)
        if attack == "natural":
            assert natural[at] != label[at]
            expected = pixels
        else:
            name, _, member = attack.partition("/")
            assert member in (("apgd-ce", "apgd-t") if "+" in name else ("",))
            expected = kept[name]["examples"][kept[name]["rows"] == at][0]
            assert evidence.predicted[i] == records[f"predicted/{name}"][at] != label[at]
        assert points[i].tobytes() == expected.tobytes()
        assert evidence.distance[i] == pytest.approx(np.abs(points[i].astype(float) - pixels).max(), abs=1e-12)
        np.testing.assert_array_equal(evidence.image[i], image_digest(test.images[row]))
    assert {"natural", "fgsm", "apgd-ce+apgd-t/apgd-t"} & set(evidence.names)
    assert evidence.header["code"] == code()
    assert evidence.header["network"]["weights"] == json.loads((folder / "evaluation.json").read_text())["weights"]
    weights, _ = load_weights(run_of() / "best.safetensors")
    for name, array in weights.items():
        np.testing.assert_array_equal(evidence.weights[name], array)


# Replay


@ON_EACH
def test_all_successes_are_confirmed_in_either_framework(backend):
    load(backend)
    said = stcli("replay", sealed(), "--backend", backend)
    assert (said.code, said.err) == (0, "")
    evidence = read(sealed())
    count, at_most = len(evidence.row), evidence.at_most
    assert f"confirmed: {count} of {count} successes, linf ε = 0.05" in said.out
    assert f"so on these 24 images the robust accuracy is at most {100 * at_most.value:.2f} [" in said.out
    assert f"not checked: {at_most.correct} of 24 images count as robust only since the attacks failed" in said.out
    assert "not confirmed" not in said.out


def test_margins_are_those_of_a_forward_of_ones_own():
    evidence, test = read(sealed()), digits()
    found = stcore.replay(sealed(), batch_size=7)
    model = stcore.load(run_of(), backend="torch").model
    with torch.no_grad():
        logits = model(torch.tensor(restored(evidence, test)).permute(0, 3, 1, 2)).numpy().astype(float)
    own = logits[np.arange(len(logits)), evidence.label]
    logits[np.arange(len(logits)), evidence.label] = -np.inf
    np.testing.assert_allclose(found.margin, own - logits.max(axis=1), atol=1e-5)
    np.testing.assert_array_equal(found.predicted, evidence.predicted)
    np.testing.assert_allclose(found.distance, evidence.distance, rtol=1e-9)


@pytest.mark.parametrize("weights", ["run", "file", None])
def test_the_network_is_named_as_elsewhere(weights, tmp_path):
    place = {"run": run_of(), "file": run_of() / "best.safetensors", None: None}[weights]
    assert stcore.replay(sealed(), place, backend="torch").complete


def test_a_replay_in_float64_sees_the_pixels_of_float64():
    evidence = read(sealed("float64"))
    assert restored(evidence, digits()).dtype == np.float64
    found = stcore.replay(sealed("float64"), backend="torch")
    assert found.complete
    np.testing.assert_array_equal(found.predicted, evidence.predicted)


def test_a_fresh_process_in_another_folder_replays_it(tmp_path):
    """Nothing but the file, and the package."""
    file = shutil.copy(sealed(), tmp_path / "it")
    code = f"import sys; from stcore.cli.main import main; sys.exit(main(['replay', {str(file)!r}, '--json']))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    assert result["complete"]
    assert result["confirmed"] == result["successes"] == len(read(sealed()).row)
    assert result["seal"] == read(sealed()).seal


def test_a_run_has_its_evidence(tmp_path):
    run = stcore.load(run_of())
    evidence = run.evidence(tmp_path / "it")
    assert not evidence.weights
    assert evidence.seal == read(tmp_path / "it").seal
    with pytest.raises(UsageError, match="weights: expected those of tiny with the fingerprint"):
        stcore.replay(tmp_path / "it")
    assert stcore.replay(tmp_path / "it", run_of(), backend="torch").complete


# Tampering


def damaged(rng, content):
    """One of the ways to change a file: a bit, a byte, a cut, an end, a swap, a part doubled or left out."""
    at, other = sorted(rng.choice(len(content), 2, replace=False).tolist())
    kind, changed = rng.integers(7), bytearray(content)
    if kind == 0:
        changed[at] ^= 1 << rng.integers(8)
    elif kind == 1:
        changed[at] = (changed[at] + rng.integers(1, 256)) % 256
    elif kind == 2:
        del changed[at:]
    elif kind == 3:
        changed += rng.bytes(rng.integers(1, 50))
    elif kind == 4:
        changed[at], changed[other] = changed[other], changed[at]
    elif kind == 5:
        changed[at:at] = changed[at:other]
    else:
        del changed[at:other]
    return bytes(changed)


def test_every_one_of_300_tampered_files_is_found(tmp_path):
    rng, content, file = np.random.default_rng(0), sealed().read_bytes(), tmp_path / "it"
    tried = 0
    while tried < 300:
        changed = damaged(rng, content)
        if changed == content:  # two equal bytes were swapped
            continue
        tried += 1
        file.write_bytes(changed)
        with pytest.raises(DataError, match="is damaged, or no evidence"):
            read(file)


def test_every_byte_of_the_head_and_of_the_seal_counts(tmp_path):
    content, file = sealed().read_bytes(), tmp_path / "it"
    for at in [*range(200), *range(len(content) - 64, len(content))]:
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(DataError, match="is damaged"):
            read(file)


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 32, b"x" * 5000])
def test_other_files_are_no_evidence(tmp_path, content):
    (tmp_path / "it").write_bytes(content)
    said = stcli("replay", tmp_path / "it")
    assert said.code == 3
    assert "is damaged, or no evidence" in said.err or "no evidence that stcore reads" in said.err
    assert stcli("replay", tmp_path / "nowhere").code == 3


def resealed(tmp_path, **changes):
    """The file as a forger would write it, with a seal that fits."""
    write(tmp_path / "forged", replace(read(sealed()), **changes))
    return tmp_path / "forged"


def header(**changes):
    old = read(sealed()).header
    return {**old, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        lambda e: {"label": np.where(np.arange(len(e.row)) == 0, (e.label + 1) % 10, e.label)},
        lambda e: {"image": e.image ^ 1},
        lambda e: {
            "differences": (encode(np.full((len(e.row), 8, 8, 1), 0.5, np.float32), digits().images[e.row]),)
        },
        lambda e: {"header": header(claim={**e.header["claim"], "epsilon": 0.01})},
        lambda e: {"row": np.concatenate((e.row[1:], e.row[:1]))},
    ],
    ids=["a label", "digests", "points", "a smaller ball", "rows"],
)
def test_a_forged_file_with_a_seal_of_its_own_is_not_confirmed(tmp_path, changes):
    file = resealed(tmp_path, **changes(read(sealed())))
    said = stcli("replay", file, "--backend", "torch")
    assert said.code == 6
    assert "successes are not confirmed here" in said.err
    assert "not confirmed: " in said.out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda e: {"row": np.where(np.arange(len(e.row)) == 1, e.row[0], e.row)}, "an image is broken twice"),
        (lambda e: {"row": np.where(np.arange(len(e.row)) == 1, 300, e.row)}, "broken that was not evaluated"),
        (lambda e: {"predicted": e.predicted + 10}, "a class is none"),
        (lambda e: {"attack": e.attack - 5}, "an attack has no name"),
        (lambda e: {"evaluated": e.evaluated[:-1]}, "broken that was not evaluated|counts other images"),
        (lambda e: {"evaluated": np.append(e.evaluated, 50)}, "counts other images"),
        (lambda e: {"differences": ()}, "differences are missing"),
        (lambda e: {"header": header(kind="other")}, "its kind is other"),
        (lambda e: {"header": header(dtype="int8")}, "its points are in int8"),
        (lambda e: {"header": header(claim={**e.header["claim"], "epsilon": "big"})}, "its ball has no size"),
        (lambda e: {"header": header(network={})}, "no evidence that stcore reads"),
    ],
)
def test_a_sealed_file_whose_parts_do_not_fit_is_refused(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        read(resealed(tmp_path, **changes(read(sealed()))))


def test_the_published_seal_tells_a_forged_file_from_the_first(tmp_path):
    forged = resealed(tmp_path, header=header(settings={}))
    first = read(sealed()).seal
    assert stcore.replay(sealed(), seal=first[:12], backend="torch").complete
    with pytest.raises(DataError, match="another file than the one that was published"):
        stcore.replay(forged, seal=first)
    with pytest.raises(DataError, match="seal: expected"):
        stcore.replay(sealed(), seal="")


def test_no_code_is_run_that_a_file_names(tmp_path):
    evidence = read(sealed())
    data = {**evidence.header["data"], "dataset": "os:getcwd"}
    forged = resealed(tmp_path, header=header(data=data))
    with pytest.raises(UsageError, match="dataset: expected the data"):
        stcore.replay(forged, backend="torch")
    forged = resealed(tmp_path, metadata={**evidence.metadata, "model": "os:getcwd"})
    with pytest.raises(UsageError, match=r"model: .* is of os:getcwd; received none"):
        stcore.replay(forged, backend="torch")


# Other weights, other data


def test_other_weights_are_refused(tmp_path):
    weights, metadata = load_weights(run_of() / "best.safetensors")
    name = next(iter(weights))
    other = {**weights, name: weights[name] * np.float32(1.0001)}
    save_weights(tmp_path / "other.safetensors", other, metadata)
    for place in (tmp_path / "other.safetensors", ZOO):
        said = stcli("replay", sealed(), "--weights", place)
        assert said.code == 2
        assert "weights: expected those that were attacked, of tiny, with the fingerprint" in said.err


def saved(folder, images, labels):
    """A data set as a user has it, whose test split these are."""
    folder.mkdir()
    for part in ("train", "test"):
        np.savez(folder / f"{part}.npz", images=images, labels=labels)
    return f"npz:{folder}"


def test_the_images_that_are_others_are_named_and_the_rest_is_confirmed(tmp_path):
    test, evidence = digits(), read(sealed())
    images, labels = test.images.copy(), test.labels.copy()
    changed, relabelled = evidence.row[:2].tolist(), int(evidence.row[2])
    images[changed[0], 0, 0, 0] ^= 1
    images[changed[1]] = images[changed[0]]
    labels[relabelled] = (labels[relabelled] + 1) % 10
    said = stcli("replay", sealed(), "--dataset", saved(tmp_path / "it", images, labels), "--json")
    assert said.code == 6
    found = json.loads(said.out)
    assert found["reasons"] == {"another image": 2, "another label": 1}
    assert found["confirmed"] == found["successes"] - 3
    assert [one["row"] for one in found["unconfirmed"]] == [*changed, relabelled]
    assert not found["same_data"]
    assert any("test split is another one" in note for note in found["not_checked"])
    assert found["robust_at_most"]["correct"] == evidence.at_most.correct + 3


def test_the_same_images_from_another_place_are_the_same_data(tmp_path):
    test = digits()
    place = saved(tmp_path / "it", test.images, test.labels)
    found = stcore.replay(sealed(), dataset=place, backend="torch")
    assert found.complete
    assert found.same_data


def test_images_that_are_not_there_and_images_of_another_shape(tmp_path):
    evidence, test = read(sealed()), digits()
    short = saved(tmp_path / "short", test.images[:10], np.arange(10) % 10)
    found = stcore.replay(sealed(), dataset=short, backend="torch")
    assert found.reasons["another image"] == int((evidence.row >= 10).sum())
    large = saved(tmp_path / "large", np.zeros((20, 9, 9, 1), np.uint8), np.arange(20) % 10)
    with pytest.raises((DataError, UsageError), match=r"shape|9x9"):
        stcore.replay(sealed(), dataset=large, backend="torch")


# What another network says


def shifted(evidence, model, by):
    """A network whose logit of the label is raised by this much at one image: it is then a tie, or right."""

    class Shifted(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x):
            logits = self.model(x)
            best, own = logits.max(1).values, logits[0, int(evidence.label[0])]
            raised = logits.clone()
            raised[0, int(evidence.label[0])] = own + (best[0] - own) + by * best[0].abs()
            return raised

    return Shifted().eval()


@pytest.mark.parametrize(("by", "reason"), [(1e-6, "borderline"), (0.5, "classified correctly")])
def test_rounding_is_told_from_a_wrong_claim_and_neither_is_hidden(by, reason):
    evidence = read(sealed())
    network = stcore.make_classifier(shifted(evidence, stcore.load(run_of(), backend="torch").model, by))
    found = replay_on(evidence, network, digits())
    assert found.reasons == {reason: 1}
    (one,) = found.unconfirmed
    assert one["row"] == evidence.row[0]
    assert one["margin"] >= 0
    assert found.at_most.correct == evidence.at_most.correct + 1
    assert not found.complete


@pytest.mark.parametrize(
    ("value", "reason"),
    [(np.nan, "not finite"), (1.5, "out of range"), (-0.01, "out of range"), (None, "outside the ball")],
)
def test_points_that_are_no_successes_are_not_confirmed(tmp_path, value, reason):
    evidence, test = read(sealed()), digits()
    points = restored(evidence, test)
    points[1] = 1 - points[1] if value is None else points[1]
    points[1, 0, 0, 0] = points[1, 0, 0, 0] if value is None else value
    file = resealed(tmp_path, differences=(encode(points, test.images[evidence.row]),))
    found = stcore.replay(file, backend="torch")
    assert found.reasons == {reason: 1}
    assert found.unconfirmed[0]["predicted"] is None


# Evaluations that have no evidence


def test_an_evaluation_without_examples_says_how_to_keep_them(tmp_path):
    said = stcli("evaluate", sound(), "--no-audit", *words({**SETTINGS, "attacks": "fgsm", "out": tmp_path / "e"}))
    assert said.code == 0, said.err
    said = stcli("evidence", tmp_path / "e", "--out", tmp_path / "it")
    assert said.code == 2
    assert "expected one that kept its adversarial images" in said.err
    assert "stcli evaluate RUN --attacks fgsm --save-examples" in said.err
    assert not (tmp_path / "it").exists()


@pytest.mark.parametrize(
    ("spoil", "code", "message"),
    [
        (lambda folder: (folder / "result.json").unlink(), 2, "is not finished"),
        (lambda folder: (folder / "fgsm-examples.npz").unlink(), 3, "is missing or damaged"),
        (lambda folder: (folder / "records.npz").write_bytes(b"x"), 3, "is missing or damaged"),
        (lambda folder: (folder / "evaluation.json").write_text("{}"), 3, "is damaged"),
    ],
)
def test_damaged_evaluations(tmp_path, spoil, code, message):
    folder = Path(shutil.copytree(evaluation(), tmp_path / "aa" / "best"))
    spoil(folder)
    said = stcli("evidence", tmp_path / "aa", "--out", tmp_path / "it")
    assert said.code == code, said.err
    assert message in said.err
    assert not (tmp_path / "it").exists()


def test_examples_that_are_missing_are_counted(tmp_path):
    folder = Path(shutil.copytree(evaluation(), tmp_path / "best"))
    (file,) = folder.glob("apgd*-examples.npz")
    kept = read_arrays(file)
    write_arrays(file, {name: array[1:] for name, array in kept.items()})
    count = len(kept["rows"])
    with pytest.raises(DataError, match=rf"adversarial images of {count} images; received {count - 1}"):
        from_evaluation(folder, digits())


def test_folders_that_hold_none_or_several(tmp_path):
    said = stcli("evidence", tmp_path, "--out", tmp_path / "it")
    assert said.code == 2
    assert "expected the folder of a finished evaluation" in said.err
    for name in ("a", "b"):
        shutil.copytree(evaluation(), tmp_path / "two" / name)
    said = stcli("evidence", tmp_path / "two", "--out", tmp_path / "it")
    assert said.code == 2
    assert "holds several" in said.err
    assert stcli("evidence", tmp_path / "two" / "a", "--out", tmp_path / "it").code == 0


def test_an_evaluation_outside_its_run_needs_the_weights_only_to_include_them(tmp_path):
    folder = Path(shutil.copytree(evaluation(), tmp_path / "aa"))
    assert stcli("evidence", folder, "--out", tmp_path / "it").code == 0
    said = stcli("evidence", folder, "--out", tmp_path / "with", "--with-weights")
    assert said.code == 2
    assert "Give --weights" in said.err
    said = stcli("evidence", folder, "--out", tmp_path / "with", "--with-weights", "--weights", run_of())
    assert said.code == 0
    assert read(tmp_path / "with").weights
    said = stcli("evidence", folder, "--out", tmp_path / "other", "--with-weights", "--weights", ZOO)
    assert said.code == 2
    assert "expected those that were attacked" in said.err


def test_other_data_are_refused_when_it_is_made(tmp_path):
    test = digits()
    other = ImageData.from_arrays(test.images[::-1].copy(), test.labels[::-1].copy())
    with pytest.raises(DataError, match="expected the test split of the evaluation, with the fingerprint"):
        from_evaluation(evaluation(), other)


def test_a_full_disk_leaves_the_earlier_file(tmp_path, monkeypatch):
    file = Path(shutil.copy(sealed(), tmp_path / "it"))
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UsageError, match="No space left"):
        write(file, read(file))
    assert file.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1
