"""A Markdown table of finished runs: `python benchmarks/table.py RUN [RUN …]`.

Runs that differ in their seed alone make one row: the mean of the best checkpoints' test accuracies with the
95 % t-interval over seeds; a single run shows its 95 % Clopper–Pearson interval over images.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from stcore.runs import RESULT, RunFolder

HIDDEN = ("seed", "threads", "device", "init_weights")


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    folder = RunFolder.open(path)
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return folder.read_config(), json.loads((path / RESULT).read_text()), rows


def cell(scores: list[dict[str, Any]]) -> str:
    values = np.array([100 * score["accuracy"] for score in scores])
    if len(values) == 1:
        low, high = (100 * bound for bound in scores[0]["interval_95"])
        return f"{values[0]:.1f} [{low:.1f}, {high:.1f}]"
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{values.mean():.1f} ± {half:.1f}"


def main(paths: list[str]) -> None:
    groups: dict[str, list[Any]] = {}
    for path in map(Path, paths):
        config, result, rows = read(path)
        key = json.dumps({name: value for name, value in config.items() if name not in HIDDEN})
        groups.setdefault(key, []).append((config, result, rows))
    configs = [json.loads(key) for key in groups]
    names = dict.fromkeys(name for config in configs for name in config if name != "method")
    varied = [n for n in names if len({json.dumps(c[n]) for c in configs if n in c}) > 1]
    attacks = list(next(iter(groups.values()))[0][1]["checkpoints"]["best"])
    header = ["method", *varied, "runs", *(f"{name} %" for name in attacks), "images/s"]
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for config, runs in zip(configs, groups.values(), strict=True):
        best = [result["checkpoints"]["best"] for _, result, _ in runs]
        speed = np.median([row["images_per_second"] for _, _, rows in runs for row in rows])
        cells = [cell([scores[name] for scores in best]) for name in attacks]
        row = [
            config["method"],
            *(str(config.get(n, "–")) for n in varied),
            str(len(runs)),
            *cells,
            f"{speed:.0f}",
        ]
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main(sys.argv[1:])
