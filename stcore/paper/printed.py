"""Presets of the rows of the paper's tables."""

from __future__ import annotations

from collections.abc import Iterator

from stcore.paper.building import build, drawn, standard, wide
from stcore.paper.extra_data import KEEP_BEST, extra_data
from stcore.paper.preset import Preset, Recipe
from stcore.paper.recipes import AWP, AWP_ORDER, ours, paper, table
from stcore.paper.tables import BETAS, FIGURES

_DAMAGE = {
    "table1/cifar10/mart": "The scan lost this row's decimal points.",
    "table1/cifar100/at": "Merged from two damaged readings; the clean figure may be 57.21.",
    "table1/cifar100/trades-awp": "Merged from two damaged readings; the C&W figure may be 27.05.",
    "table1/svhn/mart": "Damaged in the scan: PGD-100 may be 54.12 or 54.15; four half-widths are lost.",
    "table6/cifar10/mart2": "PGD-20 is lost in the scan, except for its half-width, 0.27.",
    "table6/cifar100/trades2-awp": "PGD-100 is higher than PGD-20 as printed.",
}
_SVHN = "The released evaluator runs PGD-20 on the first 10 000 of the 26 032 test images."


def table1() -> Iterator[Preset]:
    """ResNet-18 on CIFAR-10, CIFAR-100 and SVHN."""
    yield from _of_resnet18("table1", "5.2, Table 1")


def table6() -> Iterator[Preset]:
    """The same with two examples (†)."""
    yield from _of_resnet18("table6", "C, Table 6")


def _of_resnet18(number: str, source: str) -> Iterator[Preset]:
    for name, figures in FIGURES.items():
        if name.startswith(f"{number}/"):
            _, data, row = name.split("/")
            notes = [note for note in (_DAMAGE.get(name), _SVHN if data == "svhn" else None) if note]
            yield build(name, _recipe(source, row, data), figures, " ".join(notes))


def _recipe(source: str, row: str, data: str) -> Recipe:
    """The settings of a row such as `st` or `trades-awp`."""
    method, awp, _ = row.partition("-awp")
    perturbed = {**AWP, **(AWP_ORDER if method.startswith("trades") else {})}
    return {**table(source, method, data), **(perturbed if awp else {})}


def table2() -> Iterator[Preset]:
    """The β of Fig. 6. Two of its settings are those of Table 1."""
    source = "5.1, Table 2"
    for method, grids in BETAS.items():
        for divergence, betas in grids.items():
            recipe = {**table(source, method, "cifar10"), **paper(source, divergence=divergence)}
            if method == "trades" and divergence == "symmetric_kl":
                recipe |= ours("as squeeze training was released", stop_gradient_targets=True)
            if method == "st" and divergence != "symmetric_kl":  # the flag has no effect on the others
                del recipe["stop_gradient_targets"]
            for beta in betas:
                name = f"table2/{method}/{divergence.replace('_', '-')}/beta-{beta}"
                figures, note = drawn("natural", "autoattack"), "Drawn in Fig. 6, not printed."
                if (other := _SAME.get(name)) is not None:
                    figures, note = FIGURES[other], f"The setting, and so the figures, of {other}."
                yield build(name, {**recipe, **paper(source, beta=float(beta))}, figures, note)


_SAME = {
    "table2/trades/kl/beta-6": "table1/cifar10/trades",
    "table2/st/symmetric-kl/beta-6": "table1/cifar10/st",
}


def table3() -> Iterator[Preset]:
    """Wide ResNets."""
    for model, methods in {"wrn-34-5": ("trades", "st"), "wrn-34-10": ("trades", "mart", "st")}.items():
        for method in methods:
            name = f"table3/{model}/{method}"
            note = "Not the model of Table 5. PGD_TRADES is left blank." if method == "mart" else ""
            yield build(name, wide(table("5.2, Table 3", method, "cifar10", model)), FIGURES[name], note)


def table4() -> Iterator[Preset]:
    """WRN-28-10 with extra data. The data may no longer be available; a substitute is not comparable."""
    quoted = {
        "bat-rst": "Its settings could not be found.",
        "gair-rst": "Evaluated by its authors at ε = 0.031, not 8/255.",
        "awp-rst": "",
        "rwp-rst": "",
    }
    for row in ("rst", *quoted, "st-rst"):
        note = f"Quoted, not trained by the paper's authors. {quoted[row]}".strip() if row in quoted else ""
        checkpoint = "best" if row in KEEP_BEST else "last"
        recipe, figures = extra_data("5.3, Table 4", row), FIGURES[f"table4/{row}"]
        yield build(f"table4/{row}", recipe, figures, note, checkpoint, row not in quoted)


def table5() -> Iterator[Preset]:
    """The models of Fig. 1."""
    source, note = "A, Table 5", "One model, that of Fig. 1; not a mean over runs."
    for data in ("cifar10", "cifar100"):
        for model in ("resnet18", "wrn-34-10"):
            for method in ("standard", "at", "trades", "mart"):
                normal = method == "standard"
                recipe = standard(source, data, model) if normal else table(source, method, data, model)
                name = f"table5/{data}/{model}/{method}"
                yield build(name, recipe if normal or model == "resnet18" else wide(recipe), FIGURES[name], note)
