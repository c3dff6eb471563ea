"""Do the paper's figures come out of four small networks, on both backends alike?

    python benchmarks/findings.py FOLDER [--data parquet:DIR] [--subset 200] [--out docs/results]

FOLDER holds the runs standard, at, trades and st of benchmarks/figures.sh. Every analysis runs on PyTorch and on
Keras in float64, of the networks' last weights; the numbers of the two are compared, and the paper's qualitative
findings checked. What was analysed is kept in FOLDER/analysis: started again, this goes on where it was.
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
"""Of what training logged: the same whichever backend looks."""


def numbers(value: Any, at: str = "") -> dict[str, float]:
    """Every number in a record, by its place; what is no number is left out."""
    if isinstance(value, dict):
        return {k: v for name, one in value.items() for k, v in numbers(one, f"{at}/{name}").items()}
    if isinstance(value, list):
        return {k: v for n, one in enumerate(value) for k, v in numbers(one, f"{at}/{n}").items()}
    return {at: value} if isinstance(value, int | float) and not isinstance(value, bool) else {}


def difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[int, float]:
    """How many numbers two records have in common, all of them, and by how much they differ at most."""
    about = ("checkpoints", "stcore")
    weights = [{name: of["weights"] for name, of in it["checkpoints"].items()} for it in (one, other)]
    if weights[0] != weights[1]:
        raise SystemExit("the weights changed between two analyses: remove FOLDER/analysis and start again")
    first, second = (numbers({k: v for k, v in record.items() if k not in about}) for record in (one, other))
    if first.keys() != second.keys():
        raise SystemExit(f"different numbers are there: {sorted(first.keys() ^ second.keys())[:5]}")
    return len(first), max(abs(first[name] - second[name]) for name in first)


class Analyses:
    """Those of a folder of runs, each done once."""

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
        """Where a backend's are kept; those of another subset are others."""
        return Path(self.args.folder / "analysis" / f"{backend}-{self.args.subset}")

    def record(self, what: str, backend: str) -> dict[str, Any]:
        """The record of an analysis, made now or before."""
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
    alike = {what: difference(records[what], analyses.record(what, "keras")) for what in analyses.asked}
    findings = [
        {"analysis": what, **dataclasses.asdict(one)}
        for what, check in CHECKED.items()
        for one in check(records[what]["rows"])
    ]
    found = {
        "subset": args.subset,
        "settings": {what: record.get("settings", {}) for what, record in records.items()},
        "checkpoints": records["collaborative"]["checkpoints"],
        "torch_and_keras": {what: {"numbers": n, "largest_difference": d} for what, (n, d) in alike.items()},
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
    """The results to read."""
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
        told = ", ".join(f"{name} {value:.4g}" for name, value in one["numbers"].items())
        lines.append(f"| {one['claim']} | {'yes' if one['holds'] else '**no**'} | {told} |")
    lines += ["", "| analysis | numbers compared | largest difference of PyTorch and Keras |", "|---|---|---|"]
    for what, one in found["torch_and_keras"].items():
        lines.append(f"| {what} | {one['numbers']} | {one['largest_difference']:.1e} |")
    for what in (*found["torch_and_keras"], *LOGGED):
        lines += ["", f"![{what}](figures-{what}.png)"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
