"""The drawing: nothing is cut off or lies on another or is told by colour alone; files are whole and alike."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")

from matplotlib.figure import Figure  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from stcore.analysis import angles, collaborative, examples, landscape  # noqa: E402
from stcore.errors import UsageError  # noqa: E402
from stcore.figures import angles as draw_angles  # noqa: E402
from stcore.figures import collaborative as draw_collaborative  # noqa: E402
from stcore.figures import examples as draw_examples  # noqa: E402
from stcore.figures import landscape as draw_landscape  # noqa: E402
from stcore.figures.palette import METHOD_STYLES, ROLE_STYLES, method_styles  # noqa: E402
from stcore.figures.panels import in_255  # noqa: E402
from stcore.figures.style import COLUMN, PAGE, save, style, styled, svg  # noqa: E402
from stcore.results import names  # noqa: E402

MODELS = ("standard", "at", "trades", "st")


def of_collaborative(count):
    rng = np.random.default_rng(0)
    settings = collaborative.Settings()
    losses = [10.0 ** -np.arange(5)[:, None] * rng.uniform(0.5, 2, (5, 20)) for _ in range(count)]
    curves = [collaborative.Curve(name, name, loss, loss < 1) for name, loss in zip(MODELS, losses, strict=False)]
    return draw_collaborative.draw, collaborative.Result(settings, curves)


def of_angles(count):
    rng = np.random.default_rng(0)
    turned = [180 - 80 * rng.uniform(0.8, 1.1, (30, 20)) * np.linspace(0, 1, 20) for _ in range(count)]
    inside = np.zeros(30, bool)
    turned[0][:, 3] = np.nan  # defined for no image
    models = [angles.Angles(name, name, one, inside) for name, one in zip(MODELS, turned, strict=False)]
    return draw_angles.draw, angles.Result(angles.Settings(), models)


def of_landscape(count):
    settings = landscape.Settings(grid=9)
    a, b = np.meshgrid(settings.axis, settings.axis, indexing="ij")
    surfaces = [
        landscape.Surface(name, name, np.exp(-a) / (n + 1) + b**2 / 9, 20, 0, 1.5)
        for n, name in enumerate(MODELS[:count])
    ]
    return draw_landscape.draw, landscape.Result(settings, surfaces)


def of_examples(count, channels=3):
    rng = np.random.default_rng(0)
    pictures = []
    for name in MODELS[:count]:
        natural = rng.uniform(size=(2, 8, 8, channels))
        changed = [np.clip(natural + rng.uniform(-0.1, 0.1, natural.shape), 0, 1) for _ in range(2)]
        images = dict(zip(examples.KINDS, (natural, *changed), strict=True))
        losses = dict.fromkeys(examples.KINDS, np.array([1.5e-5, 12.0]))
        predicted = dict.fromkeys(examples.KINDS, np.array([1, 0]))
        pictures.append(examples.Pictures(name, name, images, losses, predicted))
    classes = {0: "automobile", 1: "airplane"}
    places, labels = np.array([913, 17]), np.array([0, 0])
    return draw_examples.draw, examples.Result(examples.Settings(), pictures, places, labels, classes)


ALL = [of_collaborative, of_angles, of_landscape, of_examples]
EACH = pytest.mark.parametrize("made", ALL, ids=lambda made: made.__name__)


@cache
def figure_of(made, count):
    draw, result = made(count)
    return draw(result)


@cache
def svg_of(made, count):
    return svg(figure_of(made, count))


@cache
def said_by(made, count):
    """Every text that is really drawn, with its size in points."""
    root = ElementTree.fromstring(svg_of(made, count))
    found = root.iter("{http://www.w3.org/2000/svg}text")
    return [("".join(one.itertext()), float(re.search(r"([\d.]+)px", one.get("style"))[1])) for one in found]


@EACH
@pytest.mark.parametrize("count", [1, 2, 4])
def test_nothing_is_cut_off(made, count):
    figure = figure_of(made, count)
    width, height = figure.get_size_inches()
    drawn = figure.get_tightbbox()
    assert min(drawn.x0, drawn.y0) >= -0.01
    assert drawn.x1 <= width + 0.01
    assert drawn.y1 <= height + 0.01
    assert width <= PAGE
    assert min(size for _, size in said_by(made, count)) >= 6


def named(axes):
    return axes.xaxis.label, axes.yaxis.label


@EACH
@pytest.mark.parametrize("count", [1, 4])
def test_no_text_lies_on_another(made, count):
    figure = figure_of(made, count)
    labels = [
        (label.get_text(), label.get_window_extent())
        for axes in figure.axes
        if axes.name != "3d"  # whose ticks stand in perspective
        for label in (
            *axes.get_xticklabels(),
            *axes.get_yticklabels(),
            axes.title,
            axes.xaxis.label,
            axes.yaxis.label,
        )
        if label.get_visible() and label.get_text()
    ]
    assert len(labels) > 5
    for n, (one, box) in enumerate(labels):
        for other, beside in labels[n + 1 :]:
            apart = box.x1 <= beside.x0 or beside.x1 <= box.x0 or box.y1 <= beside.y0 or beside.y1 <= box.y0
            assert apart, (one, other)


@EACH
def test_axes_are_named(made):
    said = " ".join(text for text, _ in said_by(made, 2))
    wanted = {
        of_collaborative: [
            "cross-entropy in nats (log scale)",
            "radius ε of the ball in 1/255 (l∞)",
            "shaded: ± 0.1 standard deviations",
        ],
        of_angles: ["angle in degrees", "step", "share of images in %", "after step", "median"],
        of_landscape: ["in lengths of u", "in lengths of v", "cross-entropy in nats", "natural image"],
        of_examples: ["CE 12", "airplane ✗", "automobile", "× 5", "image 913", "l∞ ε = 16/255"],
    }
    for words in (*wanted[made], *MODELS[:2]):
        assert words in said


def test_a_small_range_is_drawn_on_a_linear_axis():
    draw, result = of_collaborative(1)
    narrow = collaborative.Curve("it", None, 1 + result.curves[0].losses, result.curves[0].correct)
    figure = draw(collaborative.Result(result.settings, [narrow]))
    assert figure.axes[0].get_yscale() == "linear"
    assert not any("log" in text.get_text() for text in figure.findobj(Text))


def test_perturbations_are_shown_around_mid_grey():
    draw, result = of_examples(1, channels=1)
    figure = draw(result)
    model = result.models[0]
    natural, perturbation, example = (figure.axes[n].images[0] for n in range(3))
    expected = 0.5 + result.amplification * model.perturbation("adversarial")[0, ..., 0]
    np.testing.assert_allclose(perturbation.get_array(), expected)
    np.testing.assert_allclose(example.get_array(), model.images["adversarial"][0, ..., 0])
    assert natural.get_interpolation() == "nearest"
    assert natural.get_cmap().name == "gray"
    assert natural.get_clim() == (0, 1)


def test_images_that_cannot_be_drawn_are_refused():
    draw, result = of_examples(1, channels=2)
    with pytest.raises(UsageError, match="1 or 3 channels"):
        draw(result)


def test_no_difference_is_told_by_colour_alone():
    for known in (METHOD_STYLES, ROLE_STYLES):
        assert len({(look.marker, str(look.line)) for look in known.values()}) == len(known)
    assert len(set(method_styles(["st", "st", None, "st", "mine"]))) == 5
    assert method_styles(["trades", "st"]) == [METHOD_STYLES["trades"], METHOD_STYLES["st"]]
    assert len(method_styles([None] * 50)) == 50


@EACH
def test_files_are_the_same_each_time(made, tmp_path):
    for folder in ("one", "two"):
        draw, result = made(1)
        (tmp_path / folder).mkdir()
        files = save(draw(result), tmp_path / folder / "it", ("png", "svg", "pdf"))
        assert [file.name for file in files] == ["it.png", "it.svg", "it.pdf"]
    for file in files:
        assert file.read_bytes() == (tmp_path / "one" / file.name).read_bytes()
    element = svg_of(made, 2)
    assert element.startswith("<svg")
    assert element.rstrip().endswith("</svg>")
    assert "<text" in element  # text stays text


def test_resolution_and_width(tmp_path):
    image = pytest.importorskip("PIL.Image")
    draw, result = of_angles(1)
    (file,) = save(draw(result), tmp_path / "it")
    assert image.open(file).width == round(COLUMN * 300)


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    (tmp_path / "it.png").write_text("before")
    draw, result = of_angles(1)
    figure = draw(result)
    with pytest.raises(UsageError, match="formats: expected one of png, svg, pdf"):
        save(figure, tmp_path / "it", ("png", "gif"))
    figure.savefig = lambda *args, **kwargs: 1 / 0
    with pytest.raises(ZeroDivisionError):
        save(figure, tmp_path / "it")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("it.png", "before")]


def test_the_style_ends_where_it_began():
    before = dict(matplotlib.rcParams)
    with style(dark=True):
        assert matplotlib.rcParams["figure.facecolor"] != before["figure.facecolor"]
    assert dict(matplotlib.rcParams) == before

    @styled
    def draw(result):
        figure = Figure()
        figure.subplots().plot(result)
        return figure

    light, dark = draw([1, 2]), draw([1, 2], dark=True)
    assert dict(matplotlib.rcParams) == before
    shades = [sum(figure.get_facecolor()[:3]) for figure in (light, dark)]
    assert shades[0] > 2.9
    assert shades[1] < 0.5
    ticks = [figure.axes[0].get_xticklabels()[0].get_color() for figure in (light, dark)]
    assert ticks[0] != ticks[1]


def test_pyplot_and_its_global_state_are_not_used():
    code = (
        "import sys; import stcore.figures.angles, stcore.figures.collaborative, stcore.figures.examples;"
        "import stcore.figures.landscape; sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path.home()).returncode == 0


def test_radii_as_they_are_told():
    assert in_255([4 / 255, 8 / 255, 32 / 255])
    assert not in_255([4 / 255, 0.1])
    assert not in_255([0.2, 0.4])
    assert [names.radius(radius) for radius in (8 / 255, 0.4, 1.0, 0.123456)] == ["8/255", "0.4", "1", "0.1235"]
