"""The report in a real, headless Chromium: whole, quiet, and readable on a desk and on a phone, light and dark."""

import io
import json
import re
import shutil
import zlib

import pytest
from reported import make_evaluation, make_run, shown
from small import stcli, trained

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright not installed: pip install '.[dev]'")

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=f"no browser: none of {', '.join(NAMES)} is installed")

LONG = "a-very-long-name-that-no-line-of-a-phone-can-hold-since-it-has-no-place-to-break-0123456789"
VIEWS = [(scheme, width) for scheme in ("light", "dark") for width in (1280, 390)]
GROUNDS = {"light": 255, "dark": 0x16}


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        # A container's root has no sandbox; the page is our own.
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report of a real run with examples, of one with every kind of remark, and of one with a long name."""
    folder = tmp_path_factory.mktemp("report")
    make_run(folder / "made-up", preset="table1/cifar10/st", select="test", epochs=120)
    make_evaluation(folder / "made-up")
    make_run(folder / LONG, method="trades", finished=False, dataset=f"npz:/{LONG}/{LONG}")
    out = folder / "report.html"
    said = stcli("report", trained("torch").path, folder / "made-up", folder / LONG, "--out", out)
    assert said.code == 0, said.err
    return out


@pytest.fixture(scope="module", params=VIEWS, ids=lambda view: f"{view[0]} {view[1]}")
def page(request, browser, written):
    """The open page, with all it said and asked for."""
    scheme, width = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = context.new_page()
    opened.said, opened.asked = [], []
    opened.on("console", lambda message: opened.said.append(message.text))
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto(written.as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    yield opened
    context.close()


def test_it_says_nothing_and_asks_for_nothing(page, written):
    assert page.said == []
    assert page.asked[0] == written.as_uri()
    assert all(url.startswith("data:") for url in page.asked[1:])


def test_every_image_is_decoded_and_described(page):
    images = page.evaluate(
        "Promise.all([...document.images].map(async one => { await one.decode(); "
        "return [one.naturalWidth, one.naturalHeight, one.clientWidth, one.alt, one.className] }))"
    )
    assert len(images) == 2 * 7  # accuracies and losses of three runs, one's examples; each twice
    for width, height, seen_width, alt, ground in images:
        assert min(width, height) > 0
        assert (
            200 < seen_width <= 0.95 * max(page.viewport_size["width"], 640)
            if ground == scheme(page)
            else seen_width == 0
        )
        assert len(alt) > 40


def scheme(page):
    """What the screen prefers."""
    return "dark" if page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"


def test_figures_have_the_page_s_ground(page):
    """By the scheme one of two drawings is shown, and the corner of each is of the page's colour."""
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = map(int, re.findall(r"\d+", ground)[:3])
    assert red == GROUNDS[scheme(page)]
    corners = page.evaluate("""() => [...document.images].filter(one => one.clientWidth).map(one => {
        const canvas = document.createElement('canvas');
        [canvas.width, canvas.height] = [one.naturalWidth, one.naturalHeight];
        const pen = canvas.getContext('2d');
        pen.drawImage(one, 0, 0);
        return [...pen.getImageData(1, 1, 1, 1).data];
    })""")
    assert corners == [[red, green, blue, 255]] * 7


def test_tables_are_the_run_s_json(page):
    result = json.loads((trained("torch").path / "result.json").read_text())
    tables = page.evaluate(
        "[...document.querySelectorAll('table')].map(one => [one.caption.innerText, "
        "[...one.rows].map(row => [...row.cells].map(cell => cell.innerText.trim()))])"
    )
    rows = next(rows for caption, rows in tables if caption == "Accuracy on the test split")
    expected = [
        [f"{name} epoch {result['checkpoint_epochs'][name]}", *(shown(score) for score in scores.values())]
        for name, scores in result["checkpoints"].items()
    ]
    assert [[" ".join(cell.split()) for cell in row] for row in rows[1:]] == expected
    best = next(rows for caption, rows in tables if caption == "Best checkpoints")
    assert [" ".join(row[0].split()) for row in best[1:]] == [
        "torch st",
        "made-up st",
        f"{LONG} trades, unfinished",
    ]


def test_the_page_is_no_wider_than_the_window(page):
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")


def test_wide_tables_and_figures_scroll_in_their_own_boxes(page):
    widths = page.evaluate(
        "[...document.querySelectorAll('table, figure.wide img')].map(one => { const box = one.parentElement; "
        "return [box.getBoundingClientRect().right, box.scrollWidth, box.clientWidth, "
        "getComputedStyle(box).overflowX] })"
    )
    assert all(right <= page.viewport_size["width"] for right, *_ in widths)
    assert all(scrolls == "auto" for *_, scrolls in widths)
    if page.viewport_size["width"] == 390:
        assert any(whole > seen for _, whole, seen, _ in widths)


def test_commands_are_seen_whole(page):
    boxes = page.evaluate("[...document.querySelectorAll('pre')].map(one => [one.scrollWidth, one.clientWidth])")
    assert len(boxes) > 4
    assert all(whole <= seen for whole, seen in boxes)


def test_an_edge_with_more_behind_it_is_in_shadow(page):
    """Of a table that overflows, the right edge is darker (or lighter, on a dark ground) until it is reached."""
    place = page.evaluate("""() => {
        const boxes = [...document.querySelectorAll('.scroll')];
        const at = boxes.findIndex(one => one.scrollWidth > one.clientWidth + 40 && one.querySelector('table'));
        const box = boxes[at < 0 ? 0 : at];
        box.dataset.shown = 'yes';
        return at < 0 ? 'fits' : 'more';
    }""")
    box = page.locator("[data-shown]")

    def edge():
        """The last pixels of the first line, where no text is."""
        from PIL import Image

        picture = Image.open(io.BytesIO(box.screenshot())).convert("L")
        return abs(picture.getpixel((picture.width - 2, 5)) - GROUNDS[scheme(page)])

    try:
        before = edge()
        box.evaluate("one => one.scrollLeft = 10000")
        assert edge() <= 6
        assert before > 30 if place == "more" else before <= 6
    finally:
        box.evaluate("one => { one.scrollLeft = 0; delete one.dataset.shown }")


def test_the_examples_are_readable(page):
    """A figure's text has 9 CSS pixels at least, on a phone too."""
    scale = page.evaluate("""() => Math.min(...[...document.images].filter(one => one.clientWidth)
        .map(one => one.clientWidth / one.getAttribute('width')))""")
    assert scale * 7 * 96 / 72 >= 9  # examples are lettered in 7 points


def test_a_phone_shows_the_robust_figures_first(page):
    """They lie within the window without scrolling."""
    rights = page.evaluate(
        "[...document.querySelectorAll('table')].map(one => [one.caption.innerText, one]).filter(([caption]) => "
        "caption.startsWith('Accuracy on') || caption == 'Best checkpoints')"
        ".map(([_, one]) => one.rows[1].cells[2].getBoundingClientRect().right)"
    )
    assert len(rights) == 3
    assert all(right <= page.viewport_size["width"] for right in rights)


def test_no_text_is_cut_off_or_lies_over_another(page):
    """Each block's text is within its box, and no two blocks that do not hold one another share a place."""
    found = page.evaluate("""() => {
        const blocks = [...document.querySelectorAll(
            'h1, h2, h3, p, th, td, caption, figcaption, summary, dt, dd, pre, li, img')];
        const boxes = blocks.map(one => one.getBoundingClientRect());
        const cut = blocks.filter(one => !['IMG', 'PRE'].includes(one.tagName)
            && one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display != 'inline'
        ).map(one => one.outerHTML.slice(0, 200));
        const over = [];
        boxes.forEach((a, i) => boxes.slice(i + 1).forEach((b, k) => {
            const other = blocks[i + 1 + k];
            if (blocks[i].contains(other) || other.contains(blocks[i])) return;
            const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
            const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
            if (wide > 1 && high > 1)
                over.push([blocks[i].outerHTML.slice(0, 120), other.outerHTML.slice(0, 120)]);
        }));
        return {count: blocks.length, cut, over}
    }""")
    assert found["count"] > 200
    assert found["cut"] == []
    assert found["over"] == []


def test_no_text_of_a_figure_is_cut_off(page):
    """Each text of each drawing is within its picture."""
    cut = page.evaluate("""() => [...document.images].flatMap(one => {
        const box = document.createElement('div');
        box.innerHTML = new TextDecoder().decode(
            Uint8Array.from(atob(one.src.split(',')[1]), letter => letter.charCodeAt(0)));
        document.body.append(box);
        const whole = box.querySelector('svg').getBoundingClientRect();
        const out = [...box.querySelectorAll('text')].filter(text => {
            const own = text.getBoundingClientRect();
            return own.left < whole.left - 1 || own.right > whole.right + 1
                || own.top < whole.top - 1 || own.bottom > whole.bottom + 1;
        }).map(text => text.textContent);
        const count = box.querySelectorAll('text').length;
        box.remove();
        return count ? out : ['a picture without text'];
    })""")
    assert cut == []


def luminance(colour):
    """Relative luminance as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_stands_out_from_its_ground(page):
    """WCAG AA: a contrast of 4.5 to 1 for text."""
    pairs = page.evaluate("""() => {
        const pairs = new Set();
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            if (!walker.currentNode.textContent.trim()) continue;
            const own = walker.currentNode.parentElement;
            let ground = own;
            while (getComputedStyle(ground).backgroundColor == 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
            pairs.add(getComputedStyle(own).color + ' on ' + getComputedStyle(ground).backgroundColor);
        }
        return [...pairs]
    }""")
    assert len(pairs) > 4
    for pair in pairs:
        low, high = sorted(map(luminance, pair.split(" on ")))
        assert (high + 0.05) / (low + 0.05) >= 4.5, pair


def test_it_prints_light(page):
    """Whatever the screen prefers: no drawing in the printed file lies on the dark ground."""
    printed = page.pdf(format="A4")
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) > 2
    drawn = b"".join(
        zlib.decompress(stream)
        for stream in re.findall(rb"/FlateDecode[^>]*>>\s*stream\r?\n(.*?)endstream", printed, re.S)
    )
    assert re.search(rb"\.102 \.102 \.102 rg", drawn)  # the ink of the light scheme
    assert not re.search(rb"\.086\d* \.098\d* \.113\d* rg", drawn)  # the ground of the dark one
    page.emulate_media(media="print")
    try:
        assert page.evaluate("[...document.images].every(one => !one.clientWidth == (one.className == 'dark'))")
        assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    finally:
        page.emulate_media(media="screen")
