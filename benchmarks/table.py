"""A Markdown table of finished runs: `python benchmarks/table.py [--checkpoint last] [--json FILE] RUN [RUN …]`.

A row shows the settings that vary, or those that `--columns backend,method,awp` names. Passes are those of one
step, in forwards (a way back to the pixels counts one, one to pixels and weights two); seconds are of the median
epoch.

Runs that differ in their seed alone make one row: the mean of their checkpoints' test accuracies with the 95 %
t-interval over seeds; a single run shows its 95 % Clopper–Pearson interval over images.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from stcore.comparison.verdict import interval
from stcore.plan import make_plan
from stcore.runs import METRICS, RESULT, RunFolder

UNSHOWN = ("threads", "device", "dataset", "init", "step_size")  # told in the text, or following from the rest


def read(path: Path, checkpoint: str) -> dict[str, Any]:
    rows = [json.loads(line) for line in (path / METRICS).read_text().splitlines()]
    scores = json.loads((path / RESULT).read_text())["checkpoints"][checkpoint]
    config = RunFolder.open(path).read_config()
    return {"config": config, "scores": scores, "epochs": rows, "seed": config["seed"]}


def group(runs: list[dict[str, Any]], columns: list[str] | None = None) -> list[dict[str, Any]]:
    """One row for each set of runs that differ in their seed alone."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        key = json.dumps({name: value for name, value in run["config"].items() if name != "seed"})
        groups.setdefault(key, []).append(run)
    configs = [json.loads(key) for key in groups]
    names = dict.fromkeys(name for config in configs for name in config)
    varied = columns or [
        n for n in names if n not in UNSHOWN and len({json.dumps(c[n]) for c in configs if n in c}) > 1
    ]
    return [
        {
            **{name: config.get(name, "–") for name in varied},
            "seeds": [run["seed"] for run in same],
            **{f"{attack} %": interval([run["scores"][attack] for run in same]) for attack in same[0]["scores"]},
            "passes": make_plan({n: v for n, v in config.items() if n != "preset"}).units,
            "s/epoch": float(np.median([e["seconds"] for run in same for e in run["epochs"]])),
            "images/s": float(np.median([e["images_per_second"] for run in same for e in run["epochs"]])),
        }
        for config, same in zip(configs, groups.values(), strict=True)
    ]


def show(value: Any) -> str:
    if isinstance(value, tuple):
        return "{:.1f} [{:.1f}, {:.1f}]".format(*value)
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best")
    parser.add_argument("--columns", type=lambda names: names.split(","))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = group([read(path, args.checkpoint) for path in args.runs], args.columns)
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(show, row.values())) + " |")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
