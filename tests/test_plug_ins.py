"""Parts from elsewhere: by an installed package's short name, by an import path, and as objects of Python."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from harness import NAMES, load
from small import SETTINGS, stcli, words

import stcore
from stcore.attacks import PGD
from stcore.base import registry
from stcore.base.registry import Registry
from stcore.base.weights_file import load_weights
from stcore.cli.completion import values
from stcore.cli.doctor import plug_in_lines
from stcore.cli.own_settings import _extended
from stcore.cli.training_plan import plan_from
from stcore.core.divergences import DIVERGENCES, js
from stcore.data import load as load_data
from stcore.errors import UsageError
from stcore.evaluation.attack_names import ATTACKS
from stcore.methods import METHODS, Method, described
from stcore.models import MODELS
from stcore.runs.folder import ENVIRONMENT, RunFolder
from stcore.runs.plan import make_plan
from stcore.testing import check_attack, check_dataset, check_divergence, check_method, check_tracker
from stcore.trackers import TRACKERS

pytest.importorskip(
    "stcore_example", reason="the example plug-ins are missing: pip install -e tests/plugin_package"
)
from stcore_example.data import load as stripes
from stcore_example.divergence import hellinger
from stcore_example.method import AlpConfig
from stcore_example.tracker import Lines

SMALL = {"model": "tiny", "epochs": 1, "batch_size": 40, "steps": 1, "epsilon": 0.1, "dataset": "stripes:80"}
OF_ALL = {
    **SMALL,
    "method": "alp",
    "pairing": 0.25,
    "attacks": "corner",
    "select_by": "corner",
    "track": "lines",
    "compile": "off",
}
pytestmark = pytest.mark.filterwarnings("ignore:best is chosen on")


def trained(out, **settings):
    said = stcli("train", *words({**OF_ALL, "out": out, **settings}))
    assert said.code == 0, said.err
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a method, an attack, a data set and a tracker of the package."""
    load("torch")
    return trained(tmp_path_factory.mktemp("plug-ins") / "run")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Makes installed packages of a name, with these entry points and modules."""

    def make(name, groups, **modules):
        info = tmp_path / "site" / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"[{group}]\n{entry}\n" for group, entry in groups.items()]
        (info / "entry_points.txt").write_text("\n".join(lines))
        for module, text in modules.items():
            (tmp_path / "site" / f"{module}.py").write_text(text)
        registry.plug_ins.cache_clear()

    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(METHODS, "_found", {})
    _extended.cache_clear()
    before = set(sys.modules)
    yield make
    for module in set(sys.modules) - before:
        if str(getattr(sys.modules[module], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[module]
    registry.plug_ins.cache_clear()


# By short name, from the command line


@pytest.mark.parametrize("backend", NAMES)
def test_parts_of_a_package_train_by_their_short_names(backend, tmp_path):
    load(backend)
    by_path = "" if backend == "keras" else ",stcore_example.attack:Corner"  # Keras traces each for a second
    out = trained(tmp_path / "run", backend=backend, attacks=f"corner{by_path}")
    result = json.loads((out / "result.json").read_text())["checkpoints"]["last"]
    assert result["corner"] == result.get("stcore_example.attack:Corner", result["corner"])
    assert result["corner"]["total"] == 100
    assert (out / "lines.txt").read_text().startswith("epoch 1: loss ")


def test_a_divergence_of_a_package_trains(tmp_path):
    load("torch")
    own = {"divergence": "hellinger", "inner_divergence": "stcore_example.divergence:hellinger"}
    said = stcli("train", *words({**SMALL, **own, "out": tmp_path / "run"}))
    assert said.code == 0, said.err


def test_a_run_remembers_what_made_it(run, tmp_path):
    config = (run / "config.toml").read_text()
    assert 'method = "alp"' in config
    assert "pairing = 0.25" in config
    packages = json.loads((run / "environment.json").read_text())["packages"]
    assert packages == dict.fromkeys(("alp", "corner", "stripes"), "stcore-example 0.1.0")
    again = plan_from(["--config", str(run / "config.toml")])[0]
    assert (again.method.name, again.method.settings["pairing"]) == ("alp", 0.25)
    assert plan_from(["--config", str(run / "config.toml"), "--pairing", "2"])[0].method.settings["pairing"] == 2
    other = plan_from(["--config", str(run / "config.toml"), "--method", "at"])[0]
    assert "pairing" not in other.flat()
    assert "nothing to resume" in stcli("train", "--resume", run).out


def test_commands_read_a_run_of_plug_ins(run, tmp_path):
    assert make_plan({"select_by": "stcore_example.attack:Corner"}).evaluation.select_by.endswith("Corner")
    with pytest.raises(UsageError, match="select_by: expected one of natural, fgsm"):
        make_plan({"select_by": "autoattack"})
    said = stcli("evaluate", run, "--attacks", "corner", "--no-audit", "--json")
    assert json.loads(said.out)["best (epoch 1)"]["corner"]["total"] == 100, said.err
    assert "| alp | 0.25 |" in stcli("table", run, "--columns", "method,pairing").out
    assert "not comparable" in stcli("verify", run, "--preset", "fast/digits").out
    assert stcli("report", run, "--out", tmp_path / "r.html", "--no-examples").code == 0
    assert "stcore-example 0.1.0 (alp)" in (tmp_path / "r.html").read_text()
    loaded = stcore.load(run)
    assert loaded.evaluate(attacks=("corner",))["corner"].total == 100


def test_a_run_that_was_stopped_resumes(tmp_path):
    load("torch")
    out = tmp_path / "run"
    stopped = stcli("train", *words({**OF_ALL, "epochs": 2, "out": out, "max_hours": 0}))
    assert stopped.code == 130
    assert stcli("train", "--resume", out, "--track", "lines").code == 0
    whole = trained(tmp_path / "whole", epochs=2)
    ours, theirs = (load_weights(folder / "last.safetensors")[0] for folder in (out, whole))
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_sweep_varies_a_setting_of_a_plug_in(tmp_path):
    args = ["--method", "alp", "--vary", "pairing=0,1", "--dry-run", *words({"out": tmp_path / "s"})]
    said = stcli("sweep", *args)
    assert said.code == 0, said.err
    assert "pairing=0]" in said.out
    both = stcli("sweep", "--vary", "method=at,alp", "--vary", "pairing=1", *args[4:])
    assert both.code == 2
    assert "--method=at --pairing=1: Unrecognized options: --pairing" in both.err


@pytest.mark.parametrize("by", ["shallow", "stcore_example.model:shallow"])
def test_a_network_of_a_package_trains_and_loads(by, tmp_path):
    load("torch")
    out = trained(tmp_path / "run", model=by, track="none")
    file = out / "best.safetensors"
    evaluate = ("evaluate", file, "--dataset", "stripes", "--attacks", "fgsm", "--no-audit")
    said = stcli(*evaluate)
    assert (said.code == 0) == (by == "shallow"), (
        said.err
    )  # an import path is code to be trusted, a package is installed
    assert stcore.load(out).model is not None
    assert "--backend" in stcli("evaluate", out, "--backend", "keras").err


# What the command line knows of them


def test_help_completion_and_suggestions_know_them():
    said = " ".join(stcli("train", "--help").out.split())
    for name in ("alp", "corner", "hellinger", "stripes", "shallow", "lines"):
        assert f"From installed packages: {name}." in said
    options = {"method": "alp", "attacks": "corner", "divergence": "hellinger", "inner_divergence": "hellinger"}
    for option, name in {**options, "dataset": "stripes", "model": "shallow", "track": "lines"}.items():
        assert name in values("train", option)
    for flag, typed, meant in (
        ("--method", "alpp", "alp"),
        ("--attacks", "cornr", "corner"),
        ("--divergence", "helinger", "hellinger"),
        ("--dataset", "stripe", "stripes"),
        ("--model", "shalow", "shallow"),
        ("--track", "line", "lines"),
    ):
        assert f"Did you mean '{meant}'?" in stcli("train", flag, typed).err
    assert "method alp: of stcore-example 0.1.0" in list(plug_in_lines())


def test_a_methods_own_settings_are_options_once_it_is_named():
    said = stcli("train", "--method", "alp", "--help").out
    own = said[said.index("only of alp:") :]
    assert "--pairing NUMBER" in own
    assert "Weight λ of the pairing. (default: 0.5)" in own
    assert "--pairing" not in stcli("train", "--help").out
    assert "Unrecognized options: --pairing" in stcli("train", "--pairing", "1").err
    assert "expected a number" in stcli("train", "--method", "alp", "--pairing", "x").err
    for command in ("plan", "sweep"):
        assert "--pairing NUMBER" in stcli(command, "--method", "alp", "--help").out


def test_nothing_is_imported_before_it_is_named():
    code = (
        "import sys\n"
        "from stcore.cli.main import main\n"
        "main(['train', '--help']); main(['train', '--method', 'nope']); main(['presets'])\n"
        "assert 'stcore_example' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr


# Packages that are broken, missing, or claim another's name


def test_a_broken_package_is_named_and_disturbs_nothing_else(packages):
    packages("stcore-broken", {"stcore.methods": "odd = broken_one:Config"}, broken_one="import no_such_thing")
    said = stcli("train", "--method", "odd")
    assert said.code == 2
    assert (
        "odd of the package stcore-broken 1.0 cannot be imported from broken_one:Config (ModuleNotFound"
        in said.err
    )
    assert stcli("train", "--help").code == stcli("presets").code == 0
    assert make_plan({"method": "alp"}).method.name == "alp"


@pytest.mark.parametrize("text", ["raise SystemExit(3)", "1 / 0", "Config = 3", "class Config: pass"])
def test_whatever_a_package_does_is_a_usage_error(packages, text):
    packages("stcore-broken", {"stcore.methods": "odd = broken_two:Config"}, broken_two=text)
    said = stcli("train", "--method", "odd")
    assert (said.code, said.err.count("\n")) == (2, 1), said.err


def test_a_name_of_stcore_wins_and_doctor_says_so(packages):
    packages("stcore-greedy", {"stcore.methods": "st = stcore_example.method:AlpConfig"})
    assert make_plan({"method": "st"}).objective == make_plan({"method": "st"}).objective
    assert isinstance(make_plan({"method": "st"}).objective, stcore.SqueezeConfig)
    assert METHODS.names().count("st") == 1
    hidden = "method st: of stcore-greedy 1.0; hidden by stcore's own: name it as stcore_example.method:AlpConfig"
    assert hidden in list(plug_in_lines())


def test_a_name_of_two_packages_is_refused(packages):
    packages("stcore-other", {"stcore.methods": "alp = stcore_example.method:AlpConfig"})
    with pytest.raises(UsageError, match=r"both call a part alp\. Name the one you mean as package\.module:name"):
        METHODS.find("alp")
    assert any("ambiguous" in line for line in plug_in_lines())


def test_a_run_of_a_package_that_is_gone_says_which(run, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    shutil.copytree(run, gone)
    folder = RunFolder(gone)
    folder.write_config({**folder.read_config(), "method": "lost"})
    folder.write_json(ENVIRONMENT, {**folder.read_json(ENVIRONMENT), "packages": {"lost": "stcore-lost 2.0"}})
    for args in (("evaluate", gone), ("train", "--resume", gone)):
        said = stcli(*args)
        assert said.code == 2
        assert "lost of stcore-lost 2.0" in said.err
        assert "not installed here" in said.err
    assert stcore.load(gone).model is not None  # the network needs none of it
    with pytest.raises(UsageError, match=r"stcore-lost 2\.0"):
        stcore.load(gone).evaluate()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module:Config", "method: no_such_module cannot be imported"),
        ("stcore_example.method:Nothing", "stcore_example.method has no Nothing"),
        ("stcore_example.attack:Corner", "with a default for each field; received none for epsilon"),
        ("a b:c", "method: expected package.module:name; received 'a b:c'"),
        ("given:Mine", "Mine was handed over as an object in another process"),
    ],
)
def test_an_import_path_that_leads_nowhere_is_refused(name, says):
    said = stcli("train", "--method", name)
    assert said.code == 2
    assert says in said.err


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("things: dict = None", "each setting of .* to be a bool, int, float or str"),
        ("epochs: int = 3", "epochs has the name of an option of another meaning"),
    ],
)
def test_settings_that_cannot_be_options_are_refused(packages, field, says):
    text = (
        "from dataclasses import dataclass\nfrom stcore_example.method import AlpConfig\n"
        f"@dataclass(frozen=True)\nclass C(AlpConfig):\n    {field}\n"
    )
    packages("stcore-odd", {"stcore.methods": "odd = odd_settings:C"}, odd_settings=text)
    said = stcli("train", "--method", "odd")
    assert said.code == 2
    assert re.search(says, said.err), said.err


# From Python


QUICK = {"epochs": 1, "batch_size": 40, "progress": False, "attacks": ["fgsm"]}


def trained_in_python(tmp_path, data=None, method=None, **settings):
    load("torch")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run = stcore.train("tiny", data or "stripes:80", method, out=tmp_path / "run", **{**QUICK, **settings})
    return run, " ".join(str(one.message) for one in said)


def test_objects_of_a_module_are_named_by_their_import_path(tmp_path):
    method = stcore.SqueezeConfig(epsilon=0.1, step_size=0.05, steps=1, divergence=hellinger)
    run, said = trained_in_python(tmp_path, stripes, method, callbacks=[Lines(), "lines"])
    assert run.config["method"] == "st"
    assert run.config["divergence"] == "stcore_example.divergence:hellinger"
    assert run.config["dataset"] == "stcore_example.data:load"
    assert (run.path / "lines.txt").read_text().count("epoch 1") == 2
    assert "no import brings back" not in said
    assert stcli("evaluate", run.path, "--attacks", "corner", "--no-audit").code == 0


def test_a_method_as_an_object_is_the_same_run_as_by_name(tmp_path):
    settings = {"epsilon": 0.1, "step_size": 0.05, "steps": 1, "pairing": 0.25}
    one, _ = trained_in_python(tmp_path / "a", method=AlpConfig(**settings))
    other, _ = trained_in_python(tmp_path / "b", method="alp", **settings)
    assert one.config["method"] == "stcore_example.method:AlpConfig"
    ours, theirs = (load_weights(it.path / "last.safetensors")[0] for it in (one, other))
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_what_no_import_brings_back_is_said_and_goes_on_in_python(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Mine(AlpConfig):
        pass

    given = {"method": Mine(steps=1), "attacks": {"mine": PGD(0.1, steps=2)}}
    run, said = trained_in_python(tmp_path, **given)
    assert (run.config["method"], run.config["attacks"]) == ("given:Mine", "given:mine")
    assert "no import brings back given:Mine, given:mine" in said
    assert run.evaluate(attacks=("fgsm",))["fgsm"].total == 100
    assert "Mine was handed over as an object" in subprocess_stcli("evaluate", run.path)
    again = stcore.train("tiny", "stripes:80", out=run.path, resume=True, **{**QUICK, **given})
    assert again.accuracies == run.accuracies
    with pytest.raises(UsageError, match="resume: expected method = given:Mine"):
        stcore.train("tiny", "stripes:80", out=run.path, resume=True, **{**QUICK, **given, "method": "at"})


def subprocess_stcli(*args):
    command = [sys.executable, "-m", "stcore.cli.main", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True).stderr


def test_a_methods_object_and_settings_do_not_mix():
    with pytest.raises(UsageError, match="pairing: expected none beside a method that is an object"):
        stcore.train("tiny", "stripes", AlpConfig(), pairing=1.0)
    with pytest.raises(UsageError, match="bounds: expected"):
        stcore.train("tiny", "stripes", AlpConfig(bounds=(0.0, 2.0)))
    with pytest.raises(UsageError, match="to be a frozen dataclass"):
        stcore.train("tiny", "stripes", 3)
    with pytest.raises(UsageError, match="callbacks: expected objects with on_begin"):
        stcore.train("tiny", "stripes", callbacks=[object()])


def test_a_divergence_may_be_a_function_in_a_loop_of_ones_own(backend):
    from harness import problem

    batch, model = backend.batch(problem()), backend.build()
    by_name, own = (
        stcore.squeeze_step(model, batch.x, batch.y, config=stcore.SqueezeConfig(divergence=it), noise=batch.noise)
        for it in ("hellinger", hellinger)
    )
    for one, other in zip(by_name, own, strict=True):
        np.testing.assert_array_equal(backend.array(one), backend.array(other))
    with pytest.raises(UsageError, match="divergence: expected int to be a function"):
        stcore.SqueezeConfig(divergence=3)


# The registry


def test_names_of_objects():
    known = Registry("part", "stcore.none", {"own": js}, lambda part, name: part)
    assert known.name_of(js) == "own"
    assert known.name_of(hellinger) == "stcore_example.divergence:hellinger"
    one, two = (lambda: 1), (lambda: 2)
    assert [known.name_of(it) for it in (one, two, one)] == [
        "given:<lambda>",
        "given:<lambda>-2",
        "given:<lambda>",
    ]
    assert known.find("given:<lambda>-2") is two
    attacks = [known.name_of(PGD(0.1)), known.name_of(PGD(0.2)), known.name_of(PGD(0.1))]
    assert attacks == ["given:PGD", "given:PGD-2", "given:PGD"]
    first, second = (types.new_class("Cell") for _ in range(2))
    for cell in (first, second):  # a notebook's cell that is run again
        cell.__module__ = "__main__"
        assert known.name_of(cell) == "given:Cell"
        assert known.find("given:Cell") is cell


def test_a_method_that_is_handed_over_has_a_name():
    assert described(stcore.TradesConfig(beta=2.0))[0] == "trades"
    assert described(stcore.SingleStepConfig)[0] == "n-fgsm"
    assert described(AlpConfig) == ("stcore_example.method:AlpConfig", {})
    name = METHODS.name_of(Method(AlpConfig, {"steps": 2}))
    assert METHODS.find(name).defaults == {"steps": 2}


def test_every_registry_has_the_group_of_its_kind():
    kinds = {"stcore.methods": METHODS, "stcore.attacks": ATTACKS, "stcore.divergences": DIVERGENCES}
    for group, known in {**kinds, "stcore.models": MODELS, "stcore.trackers": TRACKERS}.items():
        assert known.group == group
        assert known.is_plug_in(known.names()[-1])


def test_a_file_of_the_working_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "mine_here.py").write_text("from stcore_example.data import load\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    assert load_data("mine_here:load").train.num_classes == 4


def test_a_factory_that_fails_is_named():
    said = stcli("train", "--attacks", "stcore_example.data:load")
    assert "expected stcore_example.data:load to return an attack" in said.err
    wrong = stcli("train", "--dataset", "stcore_example.attack:Corner", *words({**SETTINGS, "out": "x"}))
    assert "stcore_example.attack:Corner() raised TypeError" in wrong.err
    assert not Path("x").exists()
    place = stcli("train", "--dataset", "stripes:many", *words({**SETTINGS, "out": "x"}))
    assert "dataset: stripes(place='many') raised ValueError" in place.err


# The contract tests find what is wrong


@dataclasses.dataclass(frozen=True)
class Meaning(AlpConfig):
    def losses(self, model, x, y, examples, phase=0):
        per_example = super().losses(model, x, y, examples, phase)
        return per_example._replace(losses=model.ops.mean(per_example.losses))


@dataclasses.dataclass(frozen=True)
class Straying(AlpConfig):
    def find(self, model, x, y, noise, phase=0):
        return tuple(x + 2 * (one - x) for one in super().find(model, x, y, noise, phase))


@dataclasses.dataclass(frozen=True)
class Drawing(AlpConfig):
    def find(self, model, x, y, noise, phase=0):
        return tuple(
            one * np.random.default_rng().uniform(0.9, 1.0) for one in super().find(model, x, y, noise, phase)
        )


@dataclasses.dataclass(frozen=True)
class Cheap(AlpConfig):
    @property
    def passes(self):
        return super().passes._replace(forwards=1)


@dataclasses.dataclass(frozen=True)
class Early(AlpConfig):
    def phase(self, epoch):
        return epoch < 3


@dataclasses.dataclass(frozen=True)
class Indexing(AlpConfig):
    def losses(self, model, x, y, examples, phase=0):
        per_example = super().losses(model, x, y, examples, phase)
        return per_example._replace(losses=per_example.losses[:])


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (Meaning, r"losses: one number per example"),
        (Straying, r"expected examples within ε"),
        (Drawing, r"the same examples from the same noise"),
        (Cheap, r"expected passes = Passes\(forwards=4"),
        (Early, r"expected phase\(epoch\) to be a whole number"),
    ],
)
def test_the_contract_of_a_method(method, says):
    load("torch")
    with pytest.raises(AssertionError, match=says):
        check_method(method(steps=2))


def test_the_protocol_is_part_of_the_contract():
    load("torch")
    with pytest.raises(TypeError, match="opaque"):
        check_method(Indexing(steps=1))


@dataclasses.dataclass(frozen=True)
class Beyond:
    epsilon: float = 0.1
    noise_laws: tuple = ()

    def find(self, model, x, y, noise, /):
        return model.ops.clip(x + 2 * self.epsilon, 0.0, 1.0)


class Nameless(Beyond):
    __repr__ = object.__repr__


@dataclasses.dataclass(frozen=True)
class Together(Beyond):
    def find(self, model, x, y, noise, /):
        return x + 0.0001 * (model.ops.mean(model.ops.sum(x)) - 50.0)


@pytest.mark.parametrize(
    ("attack", "says"),
    [
        (Beyond(), "expected examples within ε = 0.1 in linf"),
        (Nameless(), "expected a repr of the settings"),
        (Together(), "expected"),
    ],
)
def test_the_contract_of_an_attack(attack, says):
    load("torch")
    with pytest.raises(AssertionError, match=says):
        check_attack(attack)
    with pytest.raises(AssertionError, match="expected 3 forwards"):
        check_attack("corner", forwards=3)


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda ops, p, q, stop: ops.sum(ops.exp(p) * q), "at least 0"),
        (lambda ops, p, q, stop: ops.sum((p - q) * (p - q)) + 1.0, "expected 0 for equal"),
        (lambda ops, p, q, stop: ops.mean(ops.sum((p - q) * (p - q))), "one number per example"),
        (lambda ops, p, q, stop: js(ops, p, q) * (1.0 if stop else 2.0), "with and without constant targets"),
    ],
)
def test_the_contract_of_a_divergence(function, says):
    load("torch")
    with pytest.raises(AssertionError, match=says):
        check_divergence(function)


def test_the_contract_of_data_and_trackers():
    with pytest.raises(AssertionError, match="test: expected other images than train"):
        check_dataset(lambda: {**stripes(), "test": stripes()["train"]})
    with pytest.raises(UsageError, match="expected function to return train and test"):
        check_dataset(lambda: stripes()["train"])

    class Spoiling(Lines):
        def on_epoch(self, row):
            row["epoch"] = 0

    with pytest.raises(AssertionError, match="expected the row as it was"):
        check_tracker(Spoiling)
