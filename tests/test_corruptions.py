"""CIFAR-10-C's corruptions: made from the images, or read from published files."""

import io
import json

import numpy as np
import pytest
from harness import load
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_images
from small import stcli, train, words
from test_cli_evaluate import ON_EACH, classes, evaluated, sound
from test_training import PressesCtrlC

import stcore
from stcore import Corruptions
from stcore.base.files import read_arrays, read_json
from stcore.base.weights_file import load_weights
from stcore.data import CORRUPTIONS, corrupt, load_digits
from stcore.data.corruptions import SEVERITIES
from stcore.data.corruptions.digital import COSINES
from stcore.data.corruptions.draws import Draws
from stcore.data.corruptions.published import Published
from stcore.data.corruptions.weather import plasma
from stcore.errors import DataError, UsageError
from stcore.evaluation.accuracy import Accuracy, MeanAccuracy, merge_accuracies

GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
MONOTONE = (
    *GROUPS["noise"],
    "defocus_blur",
    "motion_blur",
    "zoom_blur",
    "fog",
    "brightness",
    "contrast",
    "pixelate",
)
MONOTONE += ("jpeg_compression",)
"""Those whose images move away from the original with each severity; glass, snow, frost and elastic ones trade one
of their settings for another."""


@pytest.fixture(scope="module")
def photos():
    """24 crops of two photographs, 32×32, by means over 10×10 pixels."""
    found = []
    for photo in load_sample_images().images:
        small = photo[:420, :640].reshape(42, 10, 64, 10, 3).mean(axis=(1, 3))
        found += [small[y : y + 32, x : x + 32] for y in (0, 4, 8) for x in (0, 10, 20, 32)]
    return np.rint(found).astype(np.uint8)


def distance(one, other):
    return np.abs(one.astype(float) - other).mean()


# The fifteen


def test_they_are_the_papers_fifteen():
    assert [name for group in GROUPS.values() for name in group] == list(CORRUPTIONS)
    assert all(len(one.settings) == len(SEVERITIES) == 5 for one in CORRUPTIONS.values())


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_whatever_its_batch(photos, name):
    for severity in (1, 5):
        whole = corrupt(photos, name, severity, seed=3)
        assert (whole.dtype, whole.shape) == (np.uint8, photos.shape)
        rows = np.array([17, 3])
        np.testing.assert_array_equal(corrupt(photos[rows], name, severity, rows, seed=3), whole[rows])
        np.testing.assert_array_equal(corrupt(photos, name, severity, seed=3), whole)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_random_numbers_depend_on_seed_and_position(photos, name):
    same = np.repeat(photos[:1], 2, axis=0)
    one = corrupt(same, name, 3)
    random = name not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
    assert (one[0] != one[1]).any() == random
    assert (corrupt(same, name, 3, seed=1) != one).any() == random


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_severities(photos, name):
    """On photographs: each severity shows, none destroys the image, and most of them grow."""
    distances = [distance(corrupt(photos, name, severity), photos) for severity in SEVERITIES]
    assert 0.5 < distances[0] <= 60
    assert max(distances) < 80
    if name in MONOTONE:
        assert distances == sorted(distances)
        assert distances[-1] > 1.3 * distances[0]


@pytest.mark.parametrize(
    "shape", [(8, 8, 1), (1, 1, 1), (28, 28, 1), (9, 14, 3), (12, 12, 2), (48, 40, 3)], ids=str
)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_of_any_size(name, shape):
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    for severity in (1, 5):
        found = corrupt(images, name, severity)
        assert (found.dtype, found.shape) == (np.uint8, images.shape)


@settings(max_examples=25)
@given(st.data())
def test_a_white_and_a_black_image_stay_in_range(data):
    name = data.draw(st.sampled_from(list(CORRUPTIONS)))
    value = data.draw(st.sampled_from((0, 255)))
    image = np.full((1, 8, 8, data.draw(st.sampled_from((1, 3)))), value, np.uint8)
    found = corrupt(
        image, name, data.draw(st.sampled_from(SEVERITIES)), np.array([data.draw(st.integers(0, 10**9))])
    )
    assert found.dtype == np.uint8
    if name in (*GROUPS["blur"], "contrast", "elastic_transform", "pixelate", "jpeg_compression"):
        assert distance(found, image) <= 1  # what only moves or averages pixels leaves an even image as it is


def test_noise_has_the_published_strength():
    """Of grey images, where nothing is cut off."""
    grey = np.full((20, 32, 32, 3), 128, np.uint8)
    for severity, deviation in zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True):
        noise = (corrupt(grey, "gaussian_noise", severity) - 128.0) / 255
        assert noise.std() == pytest.approx(deviation, rel=0.03)
        assert abs(noise.mean()) < 0.001
    for severity, photons in zip(SEVERITIES, (500, 250, 100, 75, 50), strict=True):
        counted = corrupt(grey, "shot_noise", severity) / 255
        assert counted.mean() == pytest.approx(128 / 255, rel=0.01)
        assert counted.std() == pytest.approx(np.sqrt(128 / 255 / photons), rel=0.03)
    for severity, share in zip(SEVERITIES, (0.01, 0.02, 0.03, 0.05, 0.07), strict=True):
        values = corrupt(grey, "impulse_noise", severity)
        assert [(values == extreme).mean() for extreme in (0, 255)] == pytest.approx([share / 2] * 2, rel=0.12)
        assert set(np.unique(values)) == {0, 128, 255}


def test_jpeg_is_pillows(photos):
    """As far as two decoders agree: within two grey levels in the mean, and a quarter of the corruption."""
    image = pytest.importorskip("PIL.Image")
    for severity, quality in zip(SEVERITIES, (80, 65, 58, 50, 40), strict=True):
        for channels in (1, 3):
            images = photos if channels == 3 else photos[..., :1]
            expected = []
            for one in images:
                file = io.BytesIO()
                image.fromarray(one.squeeze()).save(file, "JPEG", quality=quality)
                expected.append(np.asarray(image.open(file)).reshape(one.shape))
            apart = distance(corrupt(images, "jpeg_compression", severity), np.array(expected))
            assert apart < (2 if channels == 3 else 0.4)
            assert apart < 0.25 * distance(np.array(expected), images)
    np.testing.assert_allclose(COSINES @ COSINES.T, np.eye(8), atol=1e-12)


def test_pixelate_is_pillows(photos):
    image = pytest.importorskip("PIL.Image")
    for severity, share in zip(SEVERITIES, (0.95, 0.9, 0.85, 0.75, 0.65), strict=True):
        few = (int(32 * share),) * 2
        expected = [image.fromarray(one).resize(few, image.BOX).resize((32, 32), image.BOX) for one in photos]
        found = corrupt(photos, "pixelate", severity)
        assert (
            np.abs(found.astype(int) - np.array([np.asarray(one) for one in expected])).max() <= 1
        )  # it rounds twice


def test_brightness_keeps_hue_and_saturation(photos):
    import colorsys

    found = corrupt(photos, "brightness", 4)
    for before, after in zip(photos[:, 5, 5] / 255, found[:, 5, 5] / 255, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2))
        np.testing.assert_allclose(after, expected, atol=0.003)


def test_contrast_and_zoom_against_a_separate_reading(photos):
    pixels = photos[0] / 255
    mean = pixels.mean(axis=(0, 1))
    found = corrupt(photos[:1], "contrast", 3)[0] / 255
    np.testing.assert_allclose(found, np.clip(mean + 0.4 * (pixels - mean), 0, 1), atol=0.0021)

    from scipy.ndimage import affine_transform

    total = pixels.copy()
    for factor in (1, 1.01, 1.02, 1.03, 1.04, 1.05):
        offset = 15.5 - 15.5 / factor
        for channel in range(3):
            total[..., channel] += affine_transform(
                pixels[..., channel], np.eye(2) / factor, (offset, offset), order=1
            )
    np.testing.assert_allclose(corrupt(photos[:1], "zoom_blur", 1)[0] / 255, total / 7, atol=0.0021)


def test_plasma_fills_its_range_and_smooths_with_its_decay():
    rough, smooth = (plasma(Draws(0, 0, np.arange(4)), 32, 20, decay) for decay in (1.3, 3))
    for maps in (rough, smooth):
        assert maps.shape == (4, 32, 20)
        np.testing.assert_array_equal(maps.min(axis=(1, 2)), 0)
        np.testing.assert_array_equal(maps.max(axis=(1, 2)), 1)
    assert np.abs(np.diff(smooth)).mean() < 0.5 * np.abs(np.diff(rough)).mean()


def test_what_cannot_be_corrupted_is_refused(photos):
    with pytest.raises(UsageError, match=r"corruption: expected one of .*Did you mean 'fog'"):
        corrupt(photos, "fogg", 1)
    with pytest.raises(UsageError, match="severity: expected one of 1, 2, 3, 4, 5; received '6'"):
        corrupt(photos, "fog", 6)
    for wrong in (photos / 255, photos[0]):
        with pytest.raises(DataError, match=r"images: expected uint8 \(B, H, W, C\)"):
            corrupt(wrong, "fog", 1)


# Names


def test_names_of_corruptions():
    from stcore.evaluation.corruptions import by_name

    assert by_name("corruptions") == Corruptions()
    assert len(Corruptions().cells) == 75
    assert by_name("corruptions:fog+snow").cells == tuple((n, s) for n in ("fog", "snow") for s in SEVERITIES)
    assert by_name("corruptions:1+5") == Corruptions(severities=(1, 5))
    assert by_name("corruptions:fog:3").cells == (("fog", 3),)
    assert by_name("pgd20") is by_name("corruption") is None
    for name, said in {
        "corruptions:fogg": "corruptions: expected one of",
        "corruptions:6": "severities: expected one of 1, 2, 3, 4, 5; received '6'",
        "corruptions:fog+fog": "corruptions: expected each once",
        "corruptions:fog:snow:1": "expected corruptions, or corruptions:NAME",
        "corruptions:": "corruptions: expected one of",
    }.items():
        with pytest.raises(UsageError, match=said):
            by_name(name)


# The mean


def test_the_mean_counts_images_in_its_interval():
    """The widest case: an image is right in all its versions or in none."""
    table = {"fog": {1: Accuracy(8, 10), 2: Accuracy(6, 10)}, "snow": {1: Accuracy(9, 10), 2: Accuracy(7, 10)}}
    mean = MeanAccuracy.of(table)
    assert (mean.correct, mean.total, mean.repeats, mean.value) == (30, 40, 4, 0.75)
    assert (
        MeanAccuracy.of({"fog": {1: Accuracy(8, 10), 2: Accuracy(8, 10)}}).interval() == Accuracy(8, 10).interval()
    )
    assert mean.interval()[0] < Accuracy(30, 40).interval()[0]
    assert {name: row.value for name, row in mean.rows().items()} == {"fog": 0.7, "snow": 0.8}
    assert {severity: column.value for severity, column in mean.columns().items()} == {1: 0.85, 2: 0.65}
    assert Accuracy.of_json(mean.as_json()) == mean
    (both,) = merge_accuracies([{"corruptions": mean}, {"corruptions": mean}]).values()
    assert (both.table["snow"][2], both.value, both.repeats) == (Accuracy(14, 20), 0.75, 4)


# Published files


def published(folder, images, labels, names=("fog", "snow"), change=lambda name, array: array):
    """A folder as CIFAR-10-C's, of five severities: here the images a bit darker with each."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        blocks = np.concatenate([images // (1 + number + severity) for severity in SEVERITIES])
        np.save(folder / f"{name}.npy", change(name, blocks), allow_pickle=True)
    np.save(folder / "labels.npy", change("labels", np.tile(labels, 5)), allow_pickle=True)
    return folder


def test_published_files_are_read_by_severity_and_position(tmp_path):
    images, labels = np.arange(6 * 48, dtype=np.uint8).reshape(6, 4, 4, 3), np.arange(6)
    found = Published(published(tmp_path / "c", images, labels), ["fog", "snow"])
    rows = np.array([4, 1])
    np.testing.assert_array_equal(found.images("snow", 3, rows), images[rows] // 5)
    found.check(rows, labels[rows], (4, 4, 3))
    other = Published(published(tmp_path / "d", images, labels), ["fog", "snow"])
    assert repr(other) == repr(found)  # wherever it lies
    assert repr(Published(tmp_path / "c", ["fog"])) != repr(found)
    grey = Published(published(tmp_path / "g", images[..., 0], labels), ["fog"])
    assert grey.images("fog", 1, rows).shape == (2, 4, 4, 1)


class Loaded:
    """Pickled, it would run when it is read."""

    def __reduce__(self):
        return print, ("a pickle was executed",)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("missing", "expected snow.npy in .*; it is missing"),
        ("labels missing", "expected labels.npy in .*; it is missing"),
        ("nowhere", "corrupted: expected a folder with fog.npy"),
        ("length", r"snow.npy: expected uint8 images \(N, H, W, C\), N = 30 as in labels.npy; received uint8"),
        ("dtype", "snow.npy: expected uint8 images .* received float64"),
        ("flat", "snow.npy: expected uint8 images .* of shape"),
        ("pickle", "snow.npy: expected a whole npy file"),
        ("truncated", "snow.npy: expected a whole npy file"),
        ("labels dtype", r"labels.npy: expected integers \(N,\); received float64"),
        ("labels count", "labels.npy: expected labels for 5 severities of the same images; received 29"),
    ],
)
def test_other_folders_are_refused(tmp_path, capsys, wrong, said):
    images, labels = np.zeros((6, 4, 4, 3), np.uint8), np.arange(6)
    changes = {
        "length": lambda name, array: array[:-1] if name == "snow" else array,
        "dtype": lambda name, array: array / 255 if name == "snow" else array,
        "flat": lambda name, array: array.reshape(30, -1) if name == "snow" else array,
        "pickle": lambda name, array: np.array([Loaded()] * 30) if name == "snow" else array,
        "labels dtype": lambda name, array: array.astype(float) if name == "labels" else array,
        "labels count": lambda name, array: array[:-1] if name == "labels" else array,
    }
    folder = published(tmp_path / "c", images, labels, change=changes.get(wrong, lambda name, array: array))
    if wrong == "missing":
        (folder / "snow.npy").unlink()
    elif wrong == "labels missing":
        (folder / "labels.npy").unlink()
    elif wrong == "truncated":
        (folder / "snow.npy").write_bytes((folder / "snow.npy").read_bytes()[:500])
    elif wrong == "nowhere":
        folder = tmp_path / "nowhere"
    with pytest.raises(DataError, match=said):
        Published(folder, ["fog", "snow"])
    assert "executed" not in capsys.readouterr().out


def test_files_of_other_images_are_refused(tmp_path):
    images, labels = np.zeros((6, 4, 4, 3), np.uint8), np.arange(6)
    found = Published(published(tmp_path / "c", images, labels), ["fog"])
    for rows, its, shape, said in (
        (np.arange(7), np.arange(7), (4, 4, 3), "expected versions of at least 7 images.*received 6"),
        (np.arange(2), np.array([0, 3]), (4, 4, 3), "of 2 at severity 1, 1 differ"),
        (np.arange(2), np.arange(2), (8, 8, 1), r"fog.npy: expected images \(8, 8, 1\).*received \(4, 4, 3\)"),
    ):
        with pytest.raises(DataError, match=said):
            found.check(rows, its, shape)


# In Python


def test_evaluate_takes_the_name_and_the_object(backend):
    images, labels = load_digits().test.images[:12], load_digits().test.labels[:12]
    model = backend.build("tiny", dtype="float32", channels=1, classes=10)
    own = images / 255.0 if backend.name == "keras" else images.transpose(0, 3, 1, 2) / 255.0
    asked = {"some": Corruptions(("fog", "pixelate"), (2, 5)), "one": Corruptions(("fog",), (5,))}
    scores = stcore.evaluate(model, (own, labels), asked, audit=False, batch_size=5)
    again = stcore.evaluate(model, (own, labels), ["corruptions:fog+pixelate:2+5"], audit=False, batch_size=12)
    assert scores["some"] == again["corruptions:fog+pixelate:2+5"]
    expected = {
        name: {
            severity: int((predicted(backend, model, corrupt(images, name, severity)) == labels).sum())
            for severity in (2, 5)
        }
        for name in ("fog", "pixelate")
    }
    assert {
        name: {severity: one.correct for severity, one in row.items()}
        for name, row in scores["some"].table.items()
    } == expected
    assert scores["one"].value == expected["fog"][5] / 12
    assert scores.records["some/cells"].tolist() == ["fog:2", "fog:5", "pixelate:2", "pixelate:5"]
    assert scores.records["some/predicted"].shape == (12, 4)


def predicted(backend, model, images):
    """The classes that the model itself predicts."""
    classifier = stcore.make_classifier(model)
    return np.asarray(classifier.eval_logits(classifier.images(images))).argmax(axis=1)


def test_flat_images_are_refused(backend):
    if backend.name == "keras":
        import keras

        model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(4)])
    else:
        import torch

        model = torch.nn.Linear(16, 4)
    data = np.zeros((5, 16), np.float32), np.arange(5) % 4
    with pytest.raises(UsageError, match=r"expected images \(H, W, C\) for corruptions"):
        stcore.evaluate(model, data, ["corruptions"], audit=False)


# On the command line

SOME = {"attacks": "corruptions:fog+glass_blur:1+5", "batch_size": 5}


def read(folder, name):
    return read_json(folder / f"{name}.json")


@ON_EACH
def test_what_an_evaluation_leaves(backend, tmp_path):
    load(backend)
    said = stcli(
        "evaluate",
        sound(),
        *words({**SOME, "backend": backend, "subset": "3:15", "checkpoint": "best", "out": tmp_path / "out"}),
        "--no-audit",
    )
    assert (said.code, said.err) == (0, "")
    folder = tmp_path / "out" / "best"
    score = read(folder, "result")["accuracies"][SOME["attacks"]]
    records = read_arrays(folder / "records.npz")
    assert list(score["table"]) == ["fog", "glass_blur"]
    right = records[f"{SOME['attacks']}/predicted"] == records["label"][:, None]
    assert (score["correct"], score["total"]) == (right.sum(), 48)
    assert score["table"]["glass_blur"]["5"]["correct"] == right[:, 3].sum()
    for words_of_a_row in ("│ fog ", "│ glass_blur ", "│ mean ", "correct % by severity"):
        assert words_of_a_row in said.out
    assert "ε" not in said.out  # no ball is involved


def test_shards_are_the_whole(tmp_path):
    whole = evaluated(tmp_path / "whole", **SOME)
    parts = [evaluated(tmp_path / f"{i}", **SOME, shard=f"{i}/2").parent for i in (1, 2)]
    assert stcli("merge", *parts, "--out", tmp_path / "merged").code == 0
    results = [read(folder, "result") for folder in (whole, tmp_path / "merged" / "best")]
    assert results[0]["accuracies"] == results[1]["accuracies"]


def test_ctrl_c_and_the_same_command_again(monkeypatch, tmp_path):
    whole = evaluated(tmp_path / "whole", **SOME)
    with monkeypatch.context() as patch:
        patch.setattr("stcore.cli.evaluate.make_progress", lambda _: PressesCtrlC(SOME["attacks"], 2))
        said = stcli(
            "evaluate",
            sound(),
            *words({**SOME, "epsilon": 0.05, "subset": 12, "checkpoint": "best"}),
            "--no-audit",
            "--out",
            tmp_path / "out",
        )
    assert said.code == 130
    state = read_arrays(tmp_path / "out" / "best" / "state.npz")
    assert 0 < state[f"{SOME['attacks']}/done"] < 12
    again = evaluated(tmp_path / "out", **SOME)
    assert read(again, "result")["accuracies"] == read(whole, "result")["accuracies"]


def test_a_runs_final_evaluation_has_unions_and_corruptions(tmp_path):
    union = "union:linf:0.1:fgsm+l2:0.5:fgsm"
    said = train(tmp_path / "run", attacks=f"{union},{SOME['attacks']}", method="standard", select_by="natural")
    assert said.code == 0, said.err
    scores = stcore.load(tmp_path / "run").accuracies["best"]
    assert list(scores) == ["natural", "linf:0.1:fgsm", "l2:0.5:fgsm", union, SOME["attacks"]]
    mean = scores[SOME["attacks"]]
    assert (mean.repeats, mean.total, list(mean.table)) == (4, 4 * 32, ["fog", "glass_blur"])
    assert read(tmp_path / "run", "result")["checkpoints"]["best"][SOME["attacks"]] == mean.as_json()
    again = stcli("evaluate", tmp_path / "run", "--no-audit", "--attacks", f"{union},{SOME['attacks']}")
    assert again.code == 0, again.err
    assert "finished before" in again.out


def test_json_has_the_table(tmp_path):
    given_ = {**SOME, "subset": 8, "checkpoint": "best", "out": tmp_path / "out"}
    said = stcli("evaluate", sound(), *words(given_), "--no-audit", "--json")
    assert said.code == 0, said.err
    ((_, scores),) = json.loads(said.out).items()
    assert scores == read(tmp_path / "out" / "best", "result")["accuracies"]
    assert scores[SOME["attacks"]]["table"]["fog"]["5"]["total"] == 8


def test_published_files_on_the_command_line(tmp_path):
    test = read_test_of(sound())
    folder = published(tmp_path / "c", test.images, test.labels)
    given_ = {"attacks": "corruptions:fog+snow", "corrupted": folder}
    found = evaluated(tmp_path / "out", **given_)
    records = read_arrays(found / "records.npz")
    assert read(found, "result")["accuracies"]["corruptions:fog+snow"]["total"] == 120
    assert "Published(" in read(found, "evaluation")["attacks"]["corruptions:fog+snow"]
    weights, _ = load_weights(sound() / "best.safetensors")
    for cell, divisor in ((0, 2), (4, 6), (9, 7)):
        darker = (test.images[:12] // divisor).astype(np.float32) / np.float32(255)
        expected = classes(weights, darker)
        np.testing.assert_array_equal(records["corruptions:fog+snow/predicted"][:, cell], expected)
    folder.rename(tmp_path / "moved")
    again = evaluated(tmp_path / "out", **{**given_, "corrupted": tmp_path / "moved"})
    assert read(again, "result") == read(found, "result")
    np.save(tmp_path / "moved" / "fog.npy", np.load(tmp_path / "moved" / "snow.npy"))
    said = stcli(
        "evaluate",
        sound(),
        "--no-audit",
        *words(
            {
                **given_,
                "corrupted": tmp_path / "moved",
                "subset": 12,
                "epsilon": 0.05,
                "checkpoint": "best",
                "out": tmp_path / "out",
            }
        ),
    )
    assert (said.code, "holds another evaluation: its attacks is" in said.err) == (2, True)
    published(tmp_path / "moved", test.images[::-1], test.labels[::-1])
    said = stcli("evaluate", sound(), *words({**given_, "corrupted": tmp_path / "moved", "subset": 12}))
    assert not (sound() / "evaluations").exists()
    assert (said.code, "expected the test split's labels in its order" in said.err) == (3, True)
    said = stcli("evaluate", sound(), *words({"attacks": "fgsm", "corrupted": tmp_path / "moved"}))
    assert (said.code, "corrupted: expected corruptions among the attacks; received fgsm" in said.err) == (2, True)


def read_test_of(run):
    """The test split of a run, as it is evaluated."""
    from stcore.cli.evaluation_plan import of_run
    from stcore.runs.plan import make_plan
    from stcore.runs.preparation import set_up

    settings = {name: value for name, value in of_run(run).items() if name != "test_size"}
    return set_up(make_plan(settings)).test
