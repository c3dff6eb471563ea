"""The documentation as a site: it builds without a warning and without a network, its links lead somewhere, every
page can be reached, formulas and commands are in it, and the notebooks are the pages they are made from."""

import contextlib
import importlib.util
import json
import os
import re
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from forked import forked
from harness import NAMES, load
from small import train, trained
from test_docs import DOCS, PAGES, ROOT

import stcore
from stcore import errors
from stcore.analysis.registry import ANALYSES
from stcore.cli.main import COMMANDS
from stcore.methods import METHODS


class Page(HTMLParser):
    """What a page refers to, what can be referred to in it, and its text."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.names, self.text = [], [], set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        said = dict(attributes)
        self.names |= {said["id"]} if said.get("id") else set()
        if tag == "a" and said.get("href"):
            self.links.append(said["href"])
        if tag in ("link", "script", "img", "source"):
            self.loaded += [said[key] for key in ("href", "src") if said.get(key)]

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages by their file, with the folder that they are in."""
    for package in ("sphinx", "furo", "myst_parser", "latex2mathml"):
        pytest.importorskip(package)
    for name in NAMES:
        load(name)  # whose docstrings are read
    folder = tmp_path_factory.mktemp("site")
    root = folder / "html"
    options = ["--fail-on-warning", "--keep-going", "--nitpicky", "--quiet", "-d", folder / "state"]
    nowhere = dict.fromkeys(["http_proxy", "https_proxy"], "http://127.0.0.1:9")
    forked("-m", "sphinx", *options, DOCS, root, backend="keras", env=nowhere)
    return root, {path: Page(path.read_text("utf-8")) for path in sorted(root.rglob("*.html"))}


BUILT = pytest.mark.slow  # fifteen seconds to build; the workflow builds it at each push, where a warning fails


def target(root, page, link):
    """(file, fragment) of a link within the site; None where it leads out of it."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    return (path / "index.html" if path.is_dir() else path), unquote(parts.fragment)


@BUILT
def test_links_lead_somewhere(site):
    root, pages = site
    lost = []
    for page, content in pages.items():
        for link in [*content.links, *content.loaded]:
            found = target(root, page, link)
            if found is None:
                continue
            file, fragment = found
            if not file.is_file() or (fragment and file in pages and fragment not in pages[file].names):
                lost.append(f"{page.relative_to(root)}: {link}")
    assert not lost


@BUILT
def test_every_page_is_reached_from_the_first(site):
    root, pages = site
    reached, ahead = set(), [root / "index.html"]
    while ahead:
        page = ahead.pop()
        if page in reached or page not in pages:
            continue
        reached.add(page)
        ahead += [found[0] for link in pages[page].links if (found := target(root, page, link))]
    written = {root / page.relative_to(DOCS).with_suffix(".html") for page in PAGES}
    assert written <= reached


@BUILT
def test_nothing_is_loaded_from_elsewhere(site):
    root, pages = site
    assert not [one for content in pages.values() for one in content.loaded if urlsplit(one).netloc]
    styles = "".join(path.read_text("utf-8") for path in root.rglob("*.css"))
    assert not re.findall(r"url\(\s*['\"]?(?:https?:)?//", styles)


@BUILT
def test_formulas_are_drawn_by_the_browser_itself(site):
    root, _ = site
    page = (root / "mathematics.html").read_text("utf-8")
    assert page.count("<math ") > 50
    assert "$" not in Page(re.sub(r"<math.*?</math>|<pre>.*?</pre>", "", page, flags=re.S)).text
    unknown = re.findall(r"<m[a-z]+[^>]*>\\[A-Za-z]+", page)  # a command that was not understood
    assert not unknown


@BUILT
def test_every_command_is_in_the_reference(site):
    root, pages = site
    text = pages[root / "reference" / "cli.html"].text
    for name in COMMANDS:
        assert f"usage: stcli {name}" in text
    assert "usage: stcli data fetch" in text


@BUILT
def test_every_public_name_is_in_the_reference(site):
    root, pages = site
    names = pages[root / "reference" / "api.html"].names
    expected = {f"stcore.{name}" for name in stcore.__all__} | {
        f"stcore.attacks.{name}" for name in stcore.attacks.__all__
    }
    modules = {"stcore.attacks", "stcore.presets"}
    undescribed = {"stcore.attacks.PRESETS"} - names
    assert expected - modules - undescribed <= names
    assert {f"module-{name}" for name in modules} <= names
    names = pages[root / "reference" / "analysis.html"].names
    assert {f"module-{analysis.module}" for analysis in ANALYSES.values()} <= names


# --- The page on exit codes, folders and files ---

FILES = (DOCS / "reference" / "files.md").read_text("utf-8")


def rows(heading):
    """The cells of the table below a heading."""
    section = re.split(r"^## ", FILES, flags=re.M)
    (found,) = [one for one in section if one.startswith(heading + "\n")]
    lines = [line for line in found.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_exit_codes_are_those_of_the_errors():
    said = {int(code): name.strip("`") for code, _, name in rows("Exit codes")}
    kinds = {kind.exit_code: kind.__name__ for kind in errors.StcoreError.__subclasses__()}
    assert said == {errors.OK: "", errors.BUG: "any other", **kinds, errors.INTERRUPTED: ""}


@pytest.mark.parametrize("backend", NAMES)
def test_the_files_of_a_run_are_those_that_are_listed(backend):
    run = trained(backend)
    listed = {name for cell, _ in rows("The folder of a run") for name in re.findall(r"`([^`]+)`", cell)}
    assert {path.name for path in run.path.iterdir()} <= listed


@pytest.mark.parametrize("method", METHODS)
def test_what_an_epoch_leaves_is_listed(tmp_path, method):
    load("torch")
    ema = {"ema": 0.9} if method == "standard" else {}
    said = train(tmp_path / "run", backend="torch", method=method, **ema)
    assert said.code == 0, said.err
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    listed = {name for cell, _ in rows("A line of `metrics.jsonl`") for name in re.findall(r"`([^`]+)`", cell)}
    kinds = {
        r"^ema_.*$": "ema_…",
        r"^.*_loss_deviation$": "…_loss_deviation",
        r"^.*apgd20.*_accuracy$": "…_accuracy",
    }
    short = set(row)
    for pattern, kind in kinds.items():
        short = {kind if re.search(pattern, name) else name for name in short}
    assert short <= listed


@pytest.mark.parametrize("backend", NAMES)
def test_what_weights_say_of_themselves_is_listed(backend):
    from stcore.base.weights_file import load_weights

    _, about = load_weights(trained(backend).path / "best.safetensors")
    listed = {name for cell, _ in rows("Weights") for name in re.findall(r"`([^`]+)`", cell)}
    assert set(about) == listed


# --- Notebooks ---


@pytest.fixture(scope="module")
def notebooks():
    pytest.importorskip("jupytext")
    spec = importlib.util.spec_from_file_location("notebooks", DOCS / "_ext" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["researcher", "student"])
def test_a_notebook_is_its_page(notebooks, name):
    """`make docs` writes them anew."""
    assert name in notebooks.NAMES
    assert notebooks.path_of(name).read_text("utf-8") == notebooks.text_of(name)


@pytest.mark.parametrize("name", ["researcher", "student"])
def test_a_notebooks_links_lead_somewhere(notebooks, name):
    place = notebooks.path_of(name).parent
    text = "".join(cell.source for cell in notebooks.notebook(name).cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not urlsplit(link).scheme]
    assert links
    assert not [link for link in links if not (place / link).is_file()]


def test_there_are_no_other_notebooks(notebooks):
    made = {notebooks.path_of(name) for name in notebooks.NAMES}
    assert set((ROOT / "docs").rglob("*.ipynb")) == made


@pytest.mark.slow  # a process for each command: two minutes together; what they run, the pages' own test runs too
@pytest.mark.parametrize("name", ["researcher", "student"])
def test_a_notebook_runs(notebooks, name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    for package in ("ipykernel", "torch", "matplotlib", "jinja2"):
        pytest.importorskip(package)
    monkeypatch.setenv("PATH", os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    page = notebooks.notebook(name)
    where = {"metadata": {"path": str(tmp_path)}}
    with contextlib.chdir(tmp_path):
        nbclient.NotebookClient(page, timeout=300, kernel_name="python3", resources=where).execute()
    said = [output for cell in page.cells if cell.cell_type == "code" for output in cell.outputs]
    assert said
    assert not [output for output in said if output.output_type == "error"]
