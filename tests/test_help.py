"""What `stcli` says to those who ask, or mistype: sections of options, suggestions, terminals of any width."""

import dataclasses
import re
import subprocess
import sys

import pytest
from small import stcli

from stcore.base import checks
from stcore.cli import parsing
from stcore.cli.completion import commands
from stcore.cli.help import options_of
from stcore.cli.options import EvaluateOptions, ExportOptions, PlanOptions, SweepOptions, TrainOptions
from stcore.methods import METHODS

HELP = [*(name.split() for name in commands() if name != "doctor"), ["data"], ["analyze"]]


# Sections


@pytest.mark.parametrize("kind", [TrainOptions, PlanOptions, SweepOptions, EvaluateOptions, ExportOptions])
def test_each_option_is_in_one_section(kind):
    grouped = [name for _, names in kind.GROUPS for name in names.split()]
    positional = [option.name for option in options_of(kind) if option.positional]
    assert sorted(grouped + positional) == sorted(field.name for field in dataclasses.fields(kind))


def test_train_shows_common_options_first_and_each_methods_own_apart():
    said = stcli("train", "--help").out
    titles = re.findall(r"^(\S.*):$", said, flags=re.M)
    assert titles[0] == "common options"
    sections = dict(zip(titles, re.split(r"^\S.*:$", said, flags=re.M)[1:], strict=True))
    assert "--method" in sections["common options"]
    assert "--learning-rate" in sections["optimisation"]
    for method, flag in (("st", "--inner-divergence"), ("trades", "--share-natural"), ("bat", "--segments")):
        assert [title for title, text in sections.items() if f"  {flag}" in text] == [f"only of {method}"]


def test_an_option_that_one_method_has_is_in_its_section():
    """By the methods' own settings: a new method's option must find its section too."""
    owners = {}
    for name, method in METHODS.items():
        for field in dataclasses.fields(method.config):
            owners.setdefault(field.name, set()).add(name.removesuffix("2"))  # of two examples: the same method
    options = {field.name for field in dataclasses.fields(TrainOptions)}
    for title, names in TrainOptions.GROUPS:
        for name in names.split():
            if title.startswith("only of "):
                assert owners[name] <= set(title.removeprefix("only of ").split(" and ")), name
            elif name in owners:
                assert len(owners[name]) > 1, name
    assert owners.keys() - options <= {"bounds"}


@pytest.mark.parametrize("command", commands())
def test_every_option_is_explained(command):
    for option in options_of(commands()[command]) if commands()[command] else ():
        assert len(option.text.split()) > 1 or option.positional, option
        assert option.text.endswith("."), option


# Suggestions


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("trian", "Did you mean 'train'?"),
        ("eval", "Did you mean 'evaluate'?"),
        ("data fech", "Did you mean 'fetch'?"),
        ("data fetch cifar", "Did you mean 'cifar10'?"),
        ("data info cifar:x", "Did you mean 'cifar10'?"),
        ("analyze angle run", "Did you mean 'angles'?"),
        ("presets table1/cifar10/sst", "Did you mean 'table1/cifar10/st' or"),
        ("completion bahs", "Did you mean 'bash'?"),
        ("train --method trade", "Did you mean 'trades'?"),
        ("train --method PGD", "Did you mean 'at'?"),
        ("train --method gair_rst", "Did you mean 'gair-rst'?"),
        ("train --attacks pgd", "Did you mean 'pgd20'?"),
        ("train --attacks fgsm,autoatack", "Did you mean 'autoattack'?"),
        ("train --divergence symmetric-kl", "Did you mean 'symmetric_kl'?"),
        ("train --divergence jsd", "Did you mean 'js'?"),
        ("train --preset cifar", "Did you mean 'cifar10'?"),
        ("train --preset table1/cifar10/sst", "Did you mean 'table1/cifar10/st'?"),
        ("train --model wideresnet", "Did you mean 'wrn-28-10'?"),
        ("train --schedule cosin", "Did you mean 'cosine'?"),
        ("train --norm inf", "Did you mean 'linf'?"),
        ("train --backend tensorflow", "Did you mean 'keras'?"),
        ("train --select validation", "Did you mean 'val'?"),
        ("train --precision fp16", "Did you mean 'bf16'?"),
        ("train --method st --dataset cifra10:x", "Did you mean 'cifar10'?"),
        ("table . --format tex", "Did you mean 'latex'?"),
        ("sweep --out x --vary betta=1", "Did you mean 'beta'?"),
        ("train --learnin-rate 1", "Did you mean '--learning-rate'?"),
        ("train --lr 1", "Did you mean '--learning-rate'?"),
        ("train --bs 1", "Did you mean '--batch-size'?"),
        ("train --batch 1", "Did you mean '--batch-size'?"),
        ("train --eps 1", "Did you mean '--epsilon'?"),
        ("train --alpha 1", "Did you mean '--step-size'?"),
        ("train --iters 1", "Did you mean '--steps'?"),
        ("train --pgd_steps=1", "Did you mean '--steps'?"),
        ("train --gpu 0", "Did you mean '--device'?"),
        ("train --wd 0", "Did you mean '--weight-decay'?"),
        ("train --arch x", "Did you mean '--model'?"),
        ("train --dataset-path x", "Did you mean '--dataset'?"),
        ("train --output x", "Did you mean '--out'?"),
        ("train --workers 4", "there are no workers; --threads sets"),
        ("train --num-workers 4", "there are no workers; --threads sets"),
        ("train --opt adam", "Did you mean '--optimizer'?"),
        ("train --optimizer adam", "Did you mean 'adamw'?"),
        ("evaluate run --iters 3", "The name in --attacks fixes an attack's steps"),
        ("evaluate run --ckpt best", "Did you mean '--checkpoint'?"),
    ],
)
def test_a_word_that_is_not_known_suggests_the_one_that_was_meant(words, hint):
    said = stcli(*words.split())
    assert said.code == 2, said.err
    assert hint in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("words", ["presets --workers 4", "train --bogus 1", "train --method quux", "quux"])
def test_nothing_is_suggested_that_would_not_help(words):
    said = stcli(*words.split())
    assert said.code == 2
    assert not re.search("Did you mean|workers;", said.err)


def test_every_suggestion_is_an_option():
    options = {
        option.name.replace("_", "-") for kind in (TrainOptions, EvaluateOptions) for option in options_of(kind)
    }
    assert {name for names in parsing.OPTION_ALIASES.values() for name in names} <= options
    flags = {flag for option in options_of(TrainOptions) for flag in option.flags}
    for instead in parsing.INSTEAD.values():
        assert set(re.findall(r"--[a-z-]+", instead)) <= flags


def test_an_alias_never_hides_a_name():
    """What is known is never asked about; of two meanings the first that is known is suggested."""
    assert checks.did_you_mean("l2", ["linf", "squared_l2"]) == ". Did you mean 'squared_l2'?"
    assert checks.did_you_mean("pgd", ["pgd20", "fgsm"]) == ". Did you mean 'pgd20'?"
    assert checks.did_you_mean("zebra", ["pgd20", "fgsm"]) == ""
    assert checks.did_you_mean(3, ["pgd20"]) == ""


# Terminals


@pytest.mark.parametrize("words", HELP, ids=" ".join)
@pytest.mark.parametrize("columns", [1, 40, 80])
def test_help_fits_the_terminal(words, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    said = stcli(*words, "--help")
    assert said.code == 0
    if columns > 1 and not said.out.startswith(("usage: stcli data ACTION", "usage: stcli analyze WHAT")):
        assert not [line for line in said.out.splitlines() if len(line) > columns and " " in line.strip()]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("train --help", 0),
        ("train --epochs x", 2),
        ("plan extra", 2),
        ("evaluate", 2),
        ("table nowhere", 2),
        ("presets", 0),
    ],
)
def test_a_command_ends_on_a_terminal_of_one_column(words, code):
    """In a process of its own, since a parser that draws a frame there never ended."""
    command = [sys.executable, "-m", "stcore.cli.main", *words.split()]
    narrow = {"COLUMNS": "1", "FORCE_COLOR": "1", "PATH": ""}
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, env=narrow)
    assert run.returncode == code, run.stderr
