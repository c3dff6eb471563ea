"""Check of the paper's figures on four small networks and both backends.

    python benchmarks/findings.py FOLDER [--data parquet:DIR] [--subset 200] [--out docs/results]

FOLDER holds the runs standard, at, trades and st of benchmarks/figures.sh. Every analysis of the networks' last
weights runs on PyTorch and on Keras in float64. The benchmark compares the numbers of the two and checks the
paper's qualitative findings. Finished analyses are kept in FOLDER/analysis: an interrupted benchmark resumes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from stcore.analysis.findings import CHECKED
from stcore.base.files import write_file

RUNS = ("standard", "at", "trades", "st")
LOGGED = {"curves": RUNS, "losses": ("trades", "st"), "ratio": ("trades",)}
"""The analyses of training logs, with their runs; they do not depend on the backend."""


def numbers(value: Any, at: str = "") -> dict[str, float]:
    """Every number in a record, by its path; other values are left out."""
    if isinstance(value, dict):
        return {k: v for name, one in value.items() for k, v in numbers(one, f"{at}/{name}").items()}
    if isinstance(value, list):
        return {k: v for n, one in enumerate(value) for k, v in numbers(one, f"{at}/{n}").items()}
    return {at: value} if isinstance(value, int | float) and not isinstance(value, bool) else {}


def difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[int, float]:
    """The number of values in two records, which must have the same paths, and their largest difference."""
    metadata = ("checkpoints", "stcore")
    weights = [{name: of["weights"] for name, of in it["checkpoints"].items()} for it in (one, other)]
    if weights[0] != weights[1]:
        raise SystemExit(
            "expected the same weights in both analyses; they changed. Remove FOLDER/analysis and rerun"
        )
    first, second = (numbers({k: v for k, v in record.items() if k not in metadata}) for record in (one, other))
    if first.keys() != second.keys():
        raise SystemExit(
            f"expected the same numbers in both; differing: {sorted(first.keys() ^ second.keys())[:5]}"
        )
    return len(first), max(abs(first[name] - second[name]) for name in first)


class Analyses:
    """The analyses of a folder of runs; each runs only once."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.of_all = ["--formats", "png,svg"]
        self.of_networks = ["--checkpoint", "last", "--dtype", "float64", "--threads", str(args.threads)]
        if args.data:
            self.of_networks += ["--dataset", args.data]
        few = str(max(args.subset // 10, 1))
        self.asked = {
            "collaborative": ["--subset", str(args.subset)],
            "examples": ["--classes", "2"],
            "landscape": ["--subset", few],
            "angles": ["--subset", str(args.subset), "--steps", "50"],
        }

    def folder(self, backend: str) -> Path:
        """The folder of the backend's analyses of this subset."""
        return Path(self.args.folder / "analysis" / f"{backend}-{self.args.subset}")

    def record(self, what: str, backend: str) -> dict[str, Any]:
        """The record of an analysis; runs it unless it is there."""
        out = self.folder(backend)
        file = out / f"{what}.json"
        if not file.is_file():
            runs = [str(self.args.folder / name) for name in LOGGED.get(what, RUNS)]
            words = [*self.asked[what], *self.of_networks, "--backend", backend] if what in self.asked else []
            begun = time.monotonic()
            command = [sys.executable, "-P", "-m", "stcore.cli.main", "analyze", what, *runs, *words]
            subprocess.run([*command, *self.of_all, "--out", str(out)], check=True)
            print(f"{what}, {backend}: {time.monotonic() - begun:.0f} s", flush=True)
        return dict(json.loads(file.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--subset", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()

    analyses = Analyses(args)
    records = {what: analyses.record(what, "torch") for what in (*analyses.asked, *LOGGED)}
    differences = {what: difference(records[what], analyses.record(what, "keras")) for what in analyses.asked}
    findings = [
        {"analysis": what, **dataclasses.asdict(one)}
        for what, check in CHECKED.items()
        for one in check(records[what]["rows"])
    ]
    found = {
        "subset": args.subset,
        "settings": {what: record.get("settings", {}) for what, record in records.items()},
        "checkpoints": records["collaborative"]["checkpoints"],
        "torch_and_keras": {what: {"numbers": n, "largest_difference": d} for what, (n, d) in differences.items()},
        "findings": findings,
        "rows": {what: records[what]["rows"] for what in ("collaborative", "examples", *LOGGED)},
    }
    args.out.mkdir(parents=True, exist_ok=True)
    write_file(args.out / "figures.json", json.dumps(found, indent=1) + "\n")
    write_file(args.out / "figures.md", page(found))
    for what in records:
        shutil.copyfile(analyses.folder("torch") / f"{what}.png", args.out / f"figures-{what}.png")
    print(page(found))


def page(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = [
        "# The paper's figures from four small networks",
        "",
        f"ResNet-8 on CIFAR-10 by `benchmarks/figures.sh`; {found['subset']} test images, the last weights, "
        "float64; `benchmarks/findings.py`.",
        "",
        "| finding | holds | numbers |",
        "|---|---|---|",
    ]
    for one in found["findings"]:
        values = ", ".join(f"{name} {value:.4g}" for name, value in one["numbers"].items())
        lines.append(f"| {one['claim']} | {'yes' if one['holds'] else '**no**'} | {values} |")
    lines += ["", "| analysis | numbers compared | largest difference of PyTorch and Keras |", "|---|---|---|"]
    for what, one in found["torch_and_keras"].items():
        lines.append(f"| {what} | {one['numbers']} | {one['largest_difference']:.1e} |")
    for what in (*found["torch_and_keras"], *LOGGED):
        lines += ["", f"![{what}](figures-{what}.png)"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
