"""Comparison of two result files of one benchmark: what became slower or faster.

    python benchmarks/compare.py BEFORE.json AFTER.json

For each list of `seconds` in both files, prints the ratio of the medians and the p-value of a two-sided
Mann-Whitney U test; p ≥ 0.05 counts as no difference. Settings and environments that differ come first: the times
of two machines compare the machines.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SIGNIFICANCE = 0.05


def rows(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, list[float]]]:
    """Every list of seconds in a result file, with its path in the file."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from rows(value, (*path, name))
    elif isinstance(content, list) and "seconds" in path:
        yield " / ".join(word for word in path if word != "seconds"), content


def verdict(before: list[float], after: list[float]) -> tuple[float, float, str]:
    """The ratio of the medians, the p-value, and the verdict."""
    from scipy.stats import mannwhitneyu

    ratio = statistics.median(after) / statistics.median(before)
    p = float(mannwhitneyu(before, after).pvalue)
    return ratio, p, "no difference" if p >= SIGNIFICANCE else "slower" if ratio > 1 else "faster"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    args = parser.parse_args()
    one, other = (json.loads(path.read_text()) for path in (args.before, args.after))
    for part in ("settings", "environment"):
        names = sorted(one.get(part, {}).keys() | other.get(part, {}).keys())
        for name in names:
            old, new = one.get(part, {}).get(name), other.get(part, {}).get(name)
            if old != new:
                print(f"{part} differ: {name} was {old}, is {new}")
    before, after = dict(rows(one)), dict(rows(other))
    if not before.keys() & after.keys():
        parser.error("expected two result files of one benchmark; they have no row of seconds in common")
    print("\n| what | before s | after s | after / before | p | |\n|---|---|---|---|---|---|")
    for name in before:
        if name not in after:
            print(f"| {name} | {statistics.median(before[name]):.3f} | | | | gone |")
            continue
        ratio, p, word = verdict(before[name], after[name])
        medians = (f"{statistics.median(seconds[name]):.3f}" for seconds in (before, after))
        print(f"| {name} | {' | '.join(medians)} | {ratio:.2f} | {p:.3f} | {word} |")
    for name in after.keys() - before.keys():
        print(f"| {name} | | {statistics.median(after[name]):.3f} | | | new |")


if __name__ == "__main__":
    main()
