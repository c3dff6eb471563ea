"""A provoked collapse: when it happens, when it is seen, and what a rollback saves.

    python benchmarks/collapse.py --data DATA

DATA is a folder with CIFAR-10 as train-*.parquet and test-*.parquet. FGSM without noise at ε = 16/255 collapses in
its first epochs (Wong et al., 2020); ε rises over two epochs, so that there is a robust network to lose. Trains so
three times: as it is, with `--on-trouble rollback`, and with the remedy of the rollback from the beginning. Every
ten steps the first 256 validation images are attacked in one step and in ten, beside what the watch looks at. The
collapse is the first step from which the accuracy under ten steps stays below a third of that under one until the
watch says so. Writes collapse.md and .json into docs/results.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import rounds

from stcore.cli.main import main as stcli
from stcore.core.dispatch import load_backend
from stcore.training import trainer
from stcore.training.collapse import LOOKS, CollapseWatch

NOTED_EVERY, LOOKED_AT_EVERY = 10, 25
RUNS: dict[str, list[str]] = {
    "FGSM without noise": ["--method", "n-fgsm", "--start-scale", "0"],
    "the same, rolled back": ["--method", "n-fgsm", "--start-scale", "0", "--on-trouble", "rollback"],
    "two steps from the beginning": ["--method", "n-fgsm", "--start-scale", "1", "--steps", "2", "--project"],
}
BASE = (
    "--preset cifar10 --epsilon 16/255 --model resnet-s-24 --schedule one-cycle --learning-rate 0.3 --nesterov "
    "--ramp epsilon@0.34 "
    "--validation-size 1000 --test-size 1000 --threads 1 --attacks pgd20"
)


class Noting(CollapseWatch):
    """A watch that is called every five steps: it looks when the trainer would, and notes accuracies beside it."""

    notes: list[dict[str, Any]] = []  # noqa: RUF012

    def __call__(self, search: Any) -> str | None:
        step = 5 * (len(self.notes) + 1)
        note: dict[str, Any] = {"step": step, "search": search.steps}
        self.notes.append(note)
        if step % NOTED_EVERY == 0:
            one, many = self._accuracies(search, *LOOKS[-1][:2])
            note |= {"one": one.value, "many": many.value}
        said = super().__call__(search) if step % LOOKED_AT_EVERY == 0 else None
        if said is not None:
            note["said"] = said
        return said


def one_run(words: list[str], data: Path, out: Path, epochs: int) -> list[dict[str, Any]]:
    """Trains, unless it has; returns the notes."""
    kept = out.with_suffix(".notes.json")
    if kept.is_file():
        return json.loads(kept.read_text())  # type: ignore[no-any-return]
    Noting.notes = []
    given = [*BASE.split(), "--dataset", f"parquet:{data}", "--epochs", str(epochs), "--out", str(out), *words]
    with redirect_stdout(StringIO()):
        code = stcli(["train", *given])
    if code:
        sys.exit(code)
    kept.write_text(json.dumps(Noting.notes) + "\n")
    return Noting.notes


def found(notes: list[dict[str, Any]]) -> dict[str, Any]:
    """The step of the collapse and of the first word about it; None if there is none."""
    said = next((note["step"] for note in notes if "said" in note), None)
    noted = [note for note in notes if "many" in note and (said is None or note["step"] <= said)]
    best, collapse = 0.0, None
    for note in noted:
        best = max(best, note["many"])
        if note["many"] >= note["one"] / 3:
            collapse = None
        elif collapse is None:
            collapse = note["step"]
    return {"collapse": collapse if said else None, "said": said, "best": best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--runs", type=Path, default=Path("runs/collapse"))
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    trainer.LOOK_EVERY = 5
    trainer.CollapseWatch = Noting  # type: ignore[misc]
    from stcore.runs import preparation

    preparation.CollapseWatch = Noting  # type: ignore[misc]
    args.runs.mkdir(parents=True, exist_ok=True)
    rows, curves = [], {}
    for name, words in RUNS.items():
        out = args.runs / name.replace(" ", "-").replace(",", "")
        notes = one_run(words, args.data.resolve(), out, args.epochs)
        result = json.loads((out / "result.json").read_text())
        accuracies = result["checkpoints"]["last"]
        curves[name] = notes
        rows.append(
            {
                "run": name,
                **found(notes),
                "rollbacks": result.get("rollbacks", []),
                **{attack: accuracies[attack] for attack in ("natural", "pgd20")},
            }
        )

    def percent(accuracy: dict[str, Any]) -> str:
        low, high = accuracy["interval_95"]
        return f"{100 * accuracy['accuracy']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"

    rounds.publish(
        args.out,
        "collapse",
        "A provoked collapse",
        f"CIFAR-10 (stored as JPEG), `resnet-s-24`, PyTorch, ε = 16/255, {args.epochs} epochs of 383 steps, "
        "one-cycle to 0.3, one seed. Under ten steps: of 256 validation images. Natural and PGD-20: the last "
        "epoch, 1 000 test images, 95 % intervals.",
        rounds.command(parser, args, "runs", "data") + " --data DATA",
        rounds.table(
            (
                "run",
                "best under ten steps %",
                "collapse at step",
                "seen at step",
                "rollbacks",
                "natural %",
                "PGD-20 %",
            ),
            [
                (
                    row["run"],
                    f"{100 * row['best']:.1f}",
                    row["collapse"] or "–",
                    row["said"] or "–",
                    len(row["rollbacks"]),
                    percent(row["natural"]),
                    percent(row["pgd20"]),
                )
                for row in rows
            ],
        ),
        {"epochs": args.epochs, "base": BASE, "runs": RUNS},
        load_backend("torch").versions(),
        rows=rows,
        curves=curves,
    )


if __name__ == "__main__":
    main()
