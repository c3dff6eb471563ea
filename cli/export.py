"""`stcli export`: writes a network as a file of another program, or as an entry for RobustBench."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from stcore import errors, models
from stcore.api.run import load
from stcore.base import checks
from stcore.base.files import check_free, replacing_folder, write_file
from stcore.base.weights_file import load_weights
from stcore.cli.console import make_console, say
from stcore.cli.options import ExportOptions, RobustBenchOptions
from stcore.cli.own_settings import read_settings
from stcore.cli.parsing import act, parse
from stcore.cli.quiet import load_quietly, quietly
from stcore.errors import UsageError
from stcore.evaluation.folder import IDENTITY, RESULT
from stcore.export import TARGETS, export
from stcore.models import torch_files
from stcore.results.robustbench import THREATS, Evaluation, Paper, entry_path, model_info
from stcore.runs.evaluation_identity import fingerprint
from stcore.runs.folder import CHECKPOINTS, CONFIG, RunFolder

ROBUSTBENCH = "robustbench"
HELP = f"""usage: stcli export TARGET RUN --out DIR [options]

{chr(10).join(f"  {name:<13} {target.what}" for name, target in TARGETS.items())}
  {ROBUSTBENCH:<13} an entry for the leaderboard, with an evaluation

  stcli export TARGET --help lists a target's options
"""


def main(args: Sequence[str]) -> int:
    """Exports to the target that the first word names; returns the exit code."""
    return act({**{name: partial(to, name) for name in TARGETS}, ROBUSTBENCH: robustbench}, HELP, args)


def to(target: str, args: Sequence[str]) -> int:
    """Writes the network, and prints how it compares."""
    options = parse(ExportOptions, args, f"stcli export {target}")
    check_free(options.out)  # before a framework is loaded
    with quietly():
        network = load(options.run, checkpoint=options.checkpoint, backend=options.backend, model=options.model)
        images, what = network.sample(options.images)
        found = export(network, target, options.out, images, preprocessing=options.preprocessing)
    say(
        make_console(),
        f"{target} → {found.path}: {found.same} of {found.images} {what} in the same class, logits within "
        f"{found.difference:.1e}",
    )
    return errors.OK


def robustbench(args: Sequence[str]) -> int:
    """Writes an entry for RobustBench."""
    options = parse(RobustBenchOptions, args, "stcli export robustbench")
    check_free(options.out)
    evaluation = Evaluation.read(options.evaluation)
    if options.dataset is not None:
        evaluation = dataclasses.replace(evaluation, dataset=options.dataset)
    entry = entry_path(evaluation, options.name)
    short = "; ".join(evaluation.shortcomings())
    if short and not options.draft:
        raise UsageError(f"evaluation: expected AutoAttack on all test images; received {short}. Or give --draft")
    path = options.weights
    settings: dict[str, Any] = {}
    if path.is_dir():
        settings = read_settings(RunFolder.open(path).path / CONFIG)
        checks.choice("checkpoint", options.checkpoint, CHECKPOINTS)
        path = path / f"{options.checkpoint}.safetensors"
    weights, about = load_weights(path)
    if not {"model", "num_classes", "image_shape", "stcore"} <= about.keys():
        raise UsageError(f"weights: expected those of stcli train or import; {path} does not name its model")
    if models.is_third_party(about["model"]) and about.get("backend") != "torch":
        raise UsageError(
            f"weights: expected those of a network in PyTorch, as RobustBench's are; {path} is of Keras"
        )
    if fingerprint(weights) != evaluation.weights:
        raise UsageError(f"evaluation: expected one of {path}; {options.evaluation} is of other weights")
    if settings.get("extra_data") and not options.additional_data and not options.footnote:
        raise UsageError(
            f"additional_data: the run mixed in {settings['extra_data']}; give --additional-data for real images, "
            "or a --footnote that names generated ones"
        )
    paper = Paper(**{field.name: getattr(options, field.name) for field in dataclasses.fields(Paper)})
    info = model_info(evaluation, paper, about["model"])
    text = claim(info, options.name, evaluation.norm) + usage(about, entry)
    if settings.get("select") == "test" and options.checkpoint.startswith("best"):
        text += "\nIts epoch was chosen on the TEST split (the paper's rule): the figures are optimistic.\n"

    load_quietly("torch")
    with replacing_folder(options.out) as out:
        for folder in ("model_info", "models"):
            (out / folder / entry).parent.mkdir(parents=True)
        write_file(out / "model_info" / f"{entry}.json", json.dumps(info, indent=2) + "\n")
        torch_files.write(out / "models" / f"{entry}.pt", weights)
        for name in (IDENTITY, RESULT):
            write_file(out / name, (options.evaluation / name).read_bytes())
        write_file(out / "README.md", text)
    console = make_console()
    say(console, f"clean {info['clean_acc']} %, AutoAttack {info['autoattack_acc']} % → {options.out}")
    if short:
        say(console, f"DRAFT, not to be submitted: {short}")
    return errors.OK


def claim(info: Mapping[str, Any], name: str, norm: str) -> str:
    """The text of RobustBench's issue "New Model"."""
    footnote = f"- **Footnote**: {info['footnote']}\n" if "footnote" in info else ""
    return f"""# [New Model] {name}

## Paper Information

- **Paper Title**: {info["name"]}
- **Paper URL**: {info["link"]}
- **Paper authors**: {info["authors"]}

## Leaderboard Claim(s)

- **Architecture**: {info["architecture"]}
- **Threat Model**: {THREATS[norm]}
- **eps**: {info["eps"]}
- **Clean accuracy**: {info["clean_acc"]}
- **Robust accuracy**: {info["autoattack_acc"]}
- **Additional data**: {str(info["additional_data"]).lower()}
- **Evaluation method**: AutoAttack, see `{IDENTITY}` and `{RESULT}`
- **Checkpoint and code**: see below
{footnote}"""


def usage(about: Mapping[str, str], entry: str) -> str:
    """Instructions to load the weights."""
    height, width, channels = about["image_shape"].split("x")
    settings = f"num_classes={about['num_classes']}, in_channels={channels}, image_size=({height}, {width})"
    if (normalize := about.get("normalize", "none")) != "none":
        settings += f', normalize="{normalize}"'
    return f"""
The weights are a state dict in the names of stcore {about["stcore"]}; pixels in [0, 1] in, logits out:

```python
import torch
from stcore import models

model = models.build("{about["model"]}", "torch", {settings}).eval()
state = torch.load("models/{entry}.pt", weights_only=True)
models.load_weights(model, {{name: tensor.numpy() for name, tensor in state.items()}})
```
"""
