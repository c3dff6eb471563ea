"""`stcli export robustbench`: writes an entry for the leaderboard."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from stcore import errors, models
from stcore.base import checks
from stcore.base.files import write_file
from stcore.base.weights_file import load_weights
from stcore.cli.console import make_console
from stcore.cli.options import ExportOptions
from stcore.cli.own_settings import read_settings
from stcore.cli.parsing import parse
from stcore.cli.quiet import load_quietly
from stcore.errors import UsageError
from stcore.evaluation.folder import IDENTITY, RESULT
from stcore.models import torch_files
from stcore.results.robustbench import THREATS, Evaluation, Paper, entry_path, model_info
from stcore.runs.evaluation_identity import fingerprint
from stcore.runs.folder import CHECKPOINTS, CONFIG, RunFolder

FORMATS = ("robustbench",)


def main(args: Sequence[str]) -> int:
    """Writes the entry; returns the exit code."""
    for word in args[:1]:
        if not word.startswith("-"):  # before the arguments of a format that was not asked for are missed
            checks.choice("to", word, FORMATS)
    options = parse(ExportOptions, args, "stcli export")
    checks.choice("to", options.to, FORMATS)
    RunFolder.check_free(options.out)
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
    out = RunFolder.create(options.out).path
    for folder in ("model_info", "models"):
        (out / folder / entry).parent.mkdir(parents=True)
    write_file(out / "model_info" / f"{entry}.json", json.dumps(info, indent=2) + "\n")
    torch_files.write(out / "models" / f"{entry}.pt", weights)
    for name in (IDENTITY, RESULT):
        write_file(out / name, (options.evaluation / name).read_bytes())
    write_file(out / "README.md", text)
    console = make_console()
    console.print(f"clean {info['clean_acc']} %, AutoAttack {info['autoattack_acc']} % → {out}", soft_wrap=True)
    if short:
        console.print(f"DRAFT, not to be submitted: {short}", soft_wrap=True)
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
