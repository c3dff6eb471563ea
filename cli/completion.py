"""`stcli completion`: scripts with which a shell completes commands, options and their values."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tyro

from stcore import errors, methods, models, presets, zoo
from stcore.analysis.registry import ANALYSES
from stcore.base import checks
from stcore.bounds.proof import METHODS as OF_PROOFS
from stcore.cli import options as of
from stcore.cli.analyze_options import OPTIONS as OF_ANALYSES
from stcore.cli.help import options_of
from stcore.cli.main import COMMANDS
from stcore.cli.parsing import parse
from stcore.core.divergences import DIVERGENCES
from stcore.data.augment import AUGMENT
from stcore.data.download.registry import PUBLISHED
from stcore.data.readers.sources import READERS
from stcore.data.resident import RESIDENT
from stcore.evaluation.attack_names import ATTACKS, MONITORS
from stcore.evaluation.results import PRECISIONS as OF_EVALUATIONS
from stcore.export import PREPROCESSING, TARGETS
from stcore.models import normalization
from stcore.runs import known_presets
from stcore.runs.folder import CHECKPOINTS
from stcore.runs.settings import PRECISIONS, SELECT
from stcore.trackers import TRACKERS
from stcore.training.noise import NOISE
from stcore.training.recovery import ON_TROUBLE
from stcore.training.schedules import SCHEDULES

SHELLS = ("bash", "zsh", "fish")
LISTS = ("attacks", "formats", "track")
"""Options that take several values, separated by commas."""


@dataclass(frozen=True)
class CompletionOptions:
    """Print a script with which the shell completes commands, options and values. Save it and open a new shell:

    bash: stcli completion bash > ~/.local/share/bash-completion/completions/stcli

    zsh: stcli completion zsh > ~/.stcli.zsh, and in ~/.zshrc: source ~/.stcli.zsh

    fish: stcli completion fish > ~/.config/fish/completions/stcli.fish
    """

    shell: tyro.conf.Positional[str]
    """bash, zsh or fish."""


def main(args: Sequence[str]) -> int:
    """Prints the script of a shell; returns the exit code."""
    shell = parse(CompletionOptions, args, "stcli completion").shell
    checks.choice("shell", shell, SHELLS)
    print(fish() if shell == "fish" else bash(in_zsh=shell == "zsh"), end="")
    return errors.OK


def commands() -> dict[str, type[Any] | None]:
    """Each command, and each action of those that have some → its options."""
    found: dict[str, type[Any] | None] = {
        "train": of.TrainOptions,
        "plan": of.PlanOptions,
        "sweep": of.SweepOptions,
        "evaluate": of.EvaluateOptions,
        "bracket": of.BracketOptions,
        "import": of.ImportOptions,
        "predict": of.PredictOptions,
        "push": of.PushOptions,
        "completion": CompletionOptions,
        "doctor": None,
        "data list": of.DataListOptions,
        "data fetch": of.DataFetchOptions,
        "data cache": of.DataCacheOptions,
        "data verify": of.DataVerifyOptions,
        "data import": of.DataImportOptions,
        "data info": of.DataInfoOptions,
        "data convert": of.DataConvertOptions,
        "zoo list": of.ZooListOptions,
        "zoo show": of.ZooShowOptions,
        **{f"export {target}": of.ExportOptions for target in TARGETS},
        "export robustbench": of.RobustBenchOptions,
        **{f"analyze {what}": OF_ANALYSES[what] for what in ANALYSES},
    }
    for name in (
        "demo",
        "evidence",
        "merge",
        "presets",
        "pseudo-label",
        "refute",
        "replay",
        "report",
        "table",
        "verify",
    ):
        module = importlib.import_module(f"stcore.cli.{name.replace('-', '_')}")
        found[name] = getattr(module, f"{name.title().replace('-', '')}Options")
    return found


def actions() -> dict[str, list[str]]:
    """Command → its actions, of the commands that have some."""
    found: dict[str, list[str]] = {}
    for command in commands():
        name, _, action = command.partition(" ")
        if action:
            found.setdefault(name, []).append(action)
    return found


def values(command: str, option: str) -> tuple[str, ...]:
    """The closed set of values of an option; empty if it takes any."""
    known = _OF_COMMANDS.get(command, {}).get(option) or _VALUES.get(option, ())
    registry = of.REGISTRIES.get(option)
    return (*known, *(name for name in registry.names() if name not in registry)) if registry else known


_DATASETS = ("digits", *PUBLISHED, *(f"{kind}:" for kind in READERS))
_VALUES: Mapping[str, tuple[str, ...]] = {
    "attacks": tuple(ATTACKS),
    "augment": tuple(AUGMENT),
    "backend": ("torch", "keras"),
    "checkpoint": CHECKPOINTS,
    "combine": ("mean", "max"),
    "compile": ("auto", "on", "off", "xla"),
    "dataset": _DATASETS,
    "device": ("auto", "cpu", "cuda", "mps", "gpu", "tpu"),
    "divergence": tuple(DIVERGENCES),
    "dtype": ("float32", "float64"),
    "engine": ("native", "reference"),
    "eval_norm": ("linf", "l2", "l1", "l0"),
    "formats": ("png", "svg", "pdf"),
    "init": ("gaussian", "uniform", "natural"),
    "inner": ("cross_entropy", "kl"),
    "inner_divergence": tuple(DIVERGENCES),
    "inner_precision": PRECISIONS,
    "method": tuple(methods.METHODS),
    "model": models.known_names(),
    "norm": ("linf", "l2"),
    "normalize": ("none", *normalization.PUBLISHED),
    "on_trouble": tuple(ON_TROUBLE),
    "precision": PRECISIONS,
    "preset": (*presets.RECIPES, *known_presets.names()),
    "noise": NOISE,
    "resident": tuple(RESIDENT),
    "schedule": SCHEDULES,
    "select": SELECT,
    "select_by": ("natural", *MONITORS),
    "track": tuple(TRACKERS),
    "weighting": ("tanh", "sigmoid", "discrete"),
    "search_mode": ("eval", "batch", "train"),
    "collaborative": ("start", "descent"),
    "natural": ("start", "image"),
}
_OF_COMMANDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "bracket": {"norm": ("linf", "l2", "l1"), "method": OF_PROOFS},
    "completion": {"shell": SHELLS},
    "data fetch": {"name": tuple(PUBLISHED)},
    "data verify": {"name": tuple(PUBLISHED)},
    "evaluate": {"norm": ("linf", "l2", "l1", "l0"), "precision": OF_EVALUATIONS},
    "export robustbench": {"dataset": ("cifar10", "cifar100")},
    **{f"export {name}": {"preprocessing": PREPROCESSING} for name, kind in TARGETS.items() if kind.computes},
    "predict": {"format": ("csv", "json")},
    "presets": {"name": known_presets.names()},
    "refute": {"norm": ("linf", "l2", "l1")},
    "report": {"format": ("html", "markdown", "card")},
    "table": {"format": ("markdown", "csv", "json", "latex"), "style": ("runs", "paper")},
    "verify": {"preset": known_presets.names()},
    "zoo show": {"name": zoo.names()},
}
"""Values of options that one command has alone, or that differ from the other commands'."""


def _flags() -> Iterator[tuple[str, str]]:
    """(command, its flags)."""
    for command, kind in commands().items():
        flags = [flag for option in options_of(kind) for flag in option.flags] if kind else []
        yield command, " ".join([*flags, "--help"])


def _choices() -> Iterator[tuple[str, str]]:
    """(command and flag, or the command alone for its argument; values)."""
    for command, kind in commands().items():
        for option in options_of(kind) if kind else ():
            if known := values(command, option.name):
                yield f"{command} {option.flags[0]}" if option.flags else command, " ".join(known)


def _cases(pairs: Iterator[tuple[str, str]]) -> str:
    """Shell patterns that set `words`; those with the same words share a line."""
    by_words: dict[str, list[str]] = {}
    for pattern, words in pairs:
        by_words.setdefault(words, []).append(pattern)
    return "\n".join(
        f"        {'|'.join(f'{pattern!r}' for pattern in patterns)}) words={words!r} ;;"
        for words, patterns in by_words.items()
    )


def bash(in_zsh: bool) -> str:
    """The script of bash, which zsh runs too, by its emulation."""
    some = actions()
    lists = "|".join(f"--{name}" for name in LISTS)
    start = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" if in_zsh else ""
    return f"""# {"zsh" if in_zsh else "bash"} completion for stcli, printed by stcli completion
{start}
_stcli_flags() {{
    case "$1" in
{_cases(_flags())}
    esac
}}

_stcli_values() {{
    case "$1" in
{_cases(_choices())}
    esac
}}

_stcli() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" words="" prefix=""
    local command="${{COMP_WORDS[1]}}" at=1
    COMPREPLY=()
    case "$command" in
        {"|".join(some)}) command="$command ${{COMP_WORDS[2]}}" at=2 ;;
    esac
    if [[ $current == "=" ]]; then  # bash takes --flag=value for three words
        current=""
    elif [[ $previous == "=" ]]; then
        previous="${{COMP_WORDS[COMP_CWORD-2]}}"
    elif [[ $current == --*=* ]]; then
        previous="${{current%%=*}}" prefix="${{current%%=*}}=" current="${{current#*=}}"
    fi
    if (( COMP_CWORD == 1 )); then
        words="{" ".join([*COMMANDS, "--help", "--version"])}"
    elif (( COMP_CWORD == 2 && at == 2 )); then
        case "${{COMP_WORDS[1]}}" in
{chr(10).join(f'            {name}) words="{" ".join([*names, "--help"])}" ;;' for name, names in some.items())}
        esac
    elif [[ $previous == --* ]]; then
        _stcli_values "$command $previous"
        if [[ $previous == @({lists}) && $current == *,* ]]; then
            prefix="$prefix${{current%,*}}," current="${{current##*,}}"
        fi
    fi
    if [[ -z $words && -z $prefix && $current == -* ]]; then
        _stcli_flags "$command"
    elif [[ -z $words && $previous != --* ]]; then
        _stcli_values "$command"
    fi
    COMPREPLY=($(compgen -P "$prefix" -W "$words" -- "$current"))
    if [[ ${{#COMPREPLY[@]}} -eq 1 && ${{COMPREPLY[*]}} == *: ]] && type compopt >/dev/null 2>&1; then
        compopt -o nospace 2>/dev/null  # after parquet: comes a folder
    fi
}}

complete -o bashdefault -o default -F _stcli stcli
"""


def fish() -> str:
    """The script of fish."""
    lines = [
        "# fish completion for stcli, printed by stcli completion",
        "function __stcli_is",
        "    set -l words (commandline -opc)",
        '    test "$words[2..$(math (count $argv) + 1)]" = "$argv"',
        "end",
        "complete -c stcli -e",
    ]
    for name, what in COMMANDS.items():
        lines.append(
            f"complete -c stcli -n 'test (count (commandline -opc)) -eq 1' -f -a {name} -d {_quoted(what)}"
        )
    for name, names in actions().items():
        first = f"__stcli_is {name}; and test (count (commandline -opc)) -eq 2"
        lines.append(f"complete -c stcli -n {_quoted(first)} -f -a {_quoted(' '.join(names))}")
    for command, kind in commands().items():
        for option in options_of(kind) if kind else ():
            known = values(command, option.name)
            line = f"complete -c stcli -n {_quoted(f'__stcli_is {command}')}"
            if option.positional:
                lines += [f"{line} -f -a {_quoted(' '.join(known))}"] if known else []
                continue
            takes = "" if option.kind is bool else f" -x -a {_quoted(' '.join(known))}" if known else " -r"
            what = _quoted(re.split(r"[.;:] ", option.text, maxsplit=1)[0].rstrip("."))
            lines += [f"{line} -l {flag.removeprefix('--')}{takes} -d {what}" for flag in option.flags]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
