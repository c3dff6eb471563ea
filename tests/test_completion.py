"""`stcli completion`: what the scripts complete, in the shells themselves."""

import re
import shutil
import subprocess

import pytest
from small import SETTINGS, stcli, words

from stcore.cli.completion import LISTS, SHELLS, commands, values
from stcore.cli.help import options_of
from stcore.cli.main import COMMANDS
from stcore.presets import RECIPES
from stcore.runs import known_presets


def needs(shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    for shell in SHELLS:
        said = stcli("completion", shell)
        assert (said.code, said.err) == (0, "")
        (folder / shell).write_text(said.out)
    return folder


@pytest.fixture(scope="module")
def complete(scripts):
    """What bash offers for the last of these words."""

    def offered(*line):
        script = (
            f'source {scripts / "bash"}; COMP_WORDS=(stcli "$@"); COMP_CWORD=$#; _stcli; echo "${{COMPREPLY[*]}}"'
        )
        run = subprocess.run(["bash", "-c", script, "stcli", *line], capture_output=True, text=True, check=True)
        assert run.stderr == ""
        return run.stdout.split()

    return offered


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        (["tr"], ["train"]),
        (["data", "f"], ["fetch"]),
        (["data", "fetch", "c"], ["cifar10", "cifar100"]),
        (["analyze", "ang"], ["angles"]),
        (["analyze", "angles", "--form"], ["--formats"]),
        (["train", "--learn"], ["--learning-rate"]),
        (["train", "--no-js"], ["--no-json"]),
        (["train", "--method", "gair"], ["gairat", "gair-rst"]),
        (["train", "--method", "=", "gair"], ["gairat", "gair-rst"]),
        (["train", "--method", "="], ["st", "standard", "at", "trades"]),
        (["train", "--attacks", "fgsm,pgd1"], ["fgsm,pgd100"]),
        (["train", "--norm", ""], ["linf", "l2"]),
        (["evaluate", "run", "--norm", ""], ["linf", "l2", "l1"]),
        (["train", "--dataset", "par"], ["parquet:"]),
        (["train", "--preset", "fast/d"], ["fast/digits"]),
        (["verify", "run", "--preset", "fast/d"], ["fast/digits"]),
        (["presets", "table1/cifar10/s"], ["table1/cifar10/st", "table1/cifar10/st-awp"]),
        (["table", "--format", "l"], ["latex"]),
        (["report", "--format", "ca"], ["card"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["evaluate", "runs/"], []),  # bash itself completes files
    ],
)
def test_bash_completes(complete, line, offered):
    found = complete(*line)
    assert found[: len(offered)] == offered
    if line[-1] not in ("", "="):
        assert found == offered


def test_bash_knows_the_command(scripts):
    script = f"source {scripts / 'bash'}; complete -p stcli"
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("-F _stcli stcli")


def test_every_command_completes_every_option(complete):
    assert {name.partition(" ")[0] for name in commands()} == set(COMMANDS)
    assert set(complete("")) == {*COMMANDS, "--help", "--version"}
    for command, kind in commands().items():
        flags = {flag for option in options_of(kind) for flag in option.flags} if kind else set()
        assert set(complete(*command.split(), "--")) == {*flags, "--help"}, command


@pytest.mark.parametrize("option", [o.name for o in options_of(commands()["train"]) if values("train", o.name)])
def test_the_values_of_a_closed_set_are_those_that_training_takes(option, tmp_path):
    """By the message about another value; what is open (a model, a data set, a device) has no such list."""
    settings = {**SETTINGS, "out": tmp_path, option: "quux"}
    of = {"inner": "bat", "weighting": "gairat", "combine": "at", "init": "at", "search_mode": "n-fgsm"}
    of |= dict.fromkeys(("collaborative", "natural"), "fast-st")
    if option in of:
        settings["method"] = of[option]
    if option == "norm":
        settings["epsilon"] = 1
    said = stcli("train", *words(settings))
    assert said.code in (2, 4), said.err
    known = values("train", option)
    listed = re.search(r"expected (?:one|some) of (.*?)(?:, or .*)?; received 'quux'", said.err)
    if option in ("dataset", "device", "model", "normalize"):
        assert (
            all(value.rstrip(":") in said.err for value in known if not value.startswith(("wrn", "resnet-s-")))
            or option == "device"
        )
    elif option == "preset":
        assert set(listed[1].split(", ")) == set(RECIPES)
        assert {*RECIPES, *known_presets.names()} == set(known)
    else:
        assert set(listed[1].split(", ")) == set(known)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_reads_its_script(scripts, shell):
    needs(shell)
    run = subprocess.run([shell, "-n", str(scripts / shell)], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("stcli tr", ["train"]),
        ("stcli data fetch ci", ["cifar10", "cifar100"]),
        ("stcli train --method gair", ["gair-rst", "gairat"]),
        ("stcli import --ke", ["--key"]),
        ("stcli data import --ke", []),
    ],
)
def test_fish_completes(scripts, line, offered):
    needs("fish")
    run = subprocess.run(
        ["fish", "-c", f"source {scripts / 'fish'}; complete -C'{line}'"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(one.partition("\t")[0] for one in run.stdout.splitlines()) == offered


def test_lists_are_options():
    names = {option.name for kind in commands().values() if kind for option in options_of(kind)}
    assert set(LISTS) <= names


def test_another_shell_is_a_usage_error():
    said = stcli("completion", "tcsh")
    assert (said.code, "shell: expected one of bash, zsh, fish; received 'tcsh'" in said.err) == (2, True)
