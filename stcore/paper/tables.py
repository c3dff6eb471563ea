"""Numbers of the paper's tables in percent, as its text prints them (scan: Li et al., ICLR 2023).

A cell is `mean±half-width` of a 95 % interval over seven runs, or `mean` if no half-width is printed or legible.
    ~     before a cell: some digits are reconstructed from conflicting or damaged readings of the scan
    lost  not recoverable from the scan
    –     the paper leaves the cell blank
Columns are named as in `stcore.paper.preset.COLUMNS`.
"""

from __future__ import annotations

from typing import NamedTuple

from stcore.paper.preset import Expected

_MAIN = "natural fgsm pgd20 pgd100 cw100 autoattack"

_TABLES = {
    # ResNet-18, l∞, 8/255; section 5.2.
    "table1/cifar10": f"""
        row         {_MAIN}
        at          82.78±0.12   56.94±0.17   51.30±0.16   50.88±0.26   49.72±0.24   47.63±0.08
        trades      82.41±0.12   58.47±0.19   52.76±0.08   52.47±0.13   50.43±0.17   49.37±0.08
        mart        ~80.70±0.17  ~58.91±0.24  ~54.02±0.29  ~53.58±0.30  ~49.35±0.27  ~47.49±0.23
        st          83.10±0.10   59.51±0.22   54.62±0.14   54.39±0.16   51.43±0.09   50.50±0.07
        trades-awp  81.16±0.12   57.86±0.14   54.56±0.06   54.45±0.14   50.95±0.12   50.31±0.10
        st-awp      82.53±0.14   59.73±0.14   55.56±0.13   55.47±0.13   52.05±0.16   51.23±0.12
    """,
    "table1/cifar100": f"""
        row         {_MAIN}
        at          ~57.27±0.21  ~31.81±0.11  ~28.66±0.11  ~28.49±0.16  ~26.89±0.08  ~24.60±0.04
        trades      57.94±0.15   32.37±0.18   29.25±0.18   29.10±0.20   25.88±0.16   24.71±0.09
        mart        55.03±0.10   33.12±0.26   30.32±0.18   30.20±0.17   26.60±0.11   25.13±0.15
        st          58.44±0.12   33.35±0.23   30.53±0.13   30.39±0.17   26.70±0.20   25.61±0.07
        trades-awp  ~58.76±0.07  ~33.82±0.15  ~31.53±0.14  ~31.42±0.12  ~27.03±0.10  ~26.06±0.12
        st-awp      59.06±0.08   34.50±0.14   32.22±0.14   32.16±0.15   27.83±0.11   26.86±0.07
    """,
    "table1/svhn": f"""
        row         {_MAIN}
        at          89.21±0.27   59.81±0.29   51.18±0.29   50.35±0.27   48.39±0.18   45.96±0.21
        trades      90.20±0.20   66.40±0.18   54.49±0.13   54.18±0.15   52.09±0.10   49.51±0.16
        mart        ~88.70       ~64.16±0.24  ~54.70       ~54.13       ~46.95±0.24  ~44.98
        st          90.68±0.15   66.68±0.22   56.35±0.19   56.00±0.22   52.57±0.12   50.54±0.10
        trades-awp  89.80±0.21   66.30±0.19   59.01±0.20   58.63±0.22   54.72±0.11   52.54±0.12
        st-awp      90.77±0.19   67.77±0.25   59.95±0.17   59.76±0.20   55.26±0.19   53.37±0.19
    """,
    # Wide ResNets on CIFAR-10; section 5.2.
    "table3/wrn-34-5": """
        row     natural  pgd_trades  autoattack
        trades  83.11    55.78       51.33
        st      83.14    57.10       52.21
    """,
    "table3/wrn-34-10": """
        row     natural  pgd_trades  autoattack
        trades  84.80    56.65       52.94
        mart    84.17    –           51.10
        st      84.92    57.73       53.54
    """,
    # WRN-28-10 with 500 000 pseudo-labelled images; section 5.3.
    "table4": """
        row       natural  pgd_rst  autoattack
        rst       89.66    62.09    59.54
        bat-rst   89.61    –        59.54
        gair-rst  89.36    –        59.64
        awp-rst   88.25    –        60.04
        rwp-rst   88.87    –        60.36
        st-rst    90.40    63.55    60.75
    """,
    # The models of Fig. 1; appendix A.
    "table5/cifar10/resnet18": """
        row       natural  autoattack
        standard  95.09    0.00
        at        82.66    47.62
        trades    82.51    49.18
        mart      81.15    47.28
    """,
    "table5/cifar10/wrn-34-10": """
        row       natural  autoattack
        standard  95.28    0.00
        at        86.90    48.31
        trades    84.80    52.94
        mart      83.62    50.93
    """,
    "table5/cifar100/resnet18": """
        row       natural  autoattack
        standard  76.33    0.00
        at        57.72    24.67
        trades    57.99    24.58
        mart      55.28    25.15
    """,
    "table5/cifar100/wrn-34-10": """
        row       natural  autoattack
        standard  79.42    0.00
        at        61.82    25.39
        trades    57.10    26.76
        mart      57.99    27.12
    """,
    # Two examples (†), ResNet-18; appendix C. Its ST rows are those of Table 1.
    "table6/cifar10": f"""
        row          {_MAIN}
        at2          82.72        57.26        51.51        50.93        49.91        47.56
        trades2      ~82.59±0.07  58.77        ~53.25±0.20  52.96        ~51.03±0.29  49.47
        mart2        80.27±0.13   58.86        lost         54.16±0.31   49.48±0.18   ~47.61±0.09
        trades2-awp  81.43±0.07   58.59±0.14   55.13±0.11   54.99        51.64        50.50
    """,
    "table6/cifar100": f"""
        row          {_MAIN}
        at2          56.57±0.11   31.71        28.52        28.27±0.21   27.11        24.64
        trades2      57.99±0.18   32.18±0.10   29.99±0.24   29.42±0.16   25.90±0.31   24.77±0.17
        mart2        55.06        32.40        30.52        30.17        26.42        24.92
        trades2-awp  58.86        34.11        31.55        31.64        27.07        26.17
    """,
    "table6/svhn": f"""
        row          {_MAIN}
        at2          87.39±0.15   58.66        50.35        49.44        46.45        44.26
        trades2      88.16±0.13   63.23±0.25   55.06±0.20   54.54±0.26   51.00±0.24   48.81±0.11
        mart2        86.72        62.23        55.08        54.43        46.77        44.78
        trades2-awp  90.32        67.55        58.67        58.35        54.72        52.67
    """,
    # In the text alone; appendix C.
    "appendix-c": """
        row                  natural     autoattack
        st-half-steps        84.37       49.52
        trades-double-steps  81.57±0.14  49.76±0.09
    """,
}

DELTAS = {
    "trades2-rst": ("table4/rst", {"natural": 0.34, "autoattack": 0.42}),
    "trades2-wrn-34-5": ("table3/wrn-34-5/trades", {"natural": -0.02, "autoattack": -0.12}),
    "trades2-wrn-34-10": ("table3/wrn-34-10/trades", {"natural": -0.71, "autoattack": -1.18}),
}
"""Rows that appendix C gives as differences: the other row, and percentage points by attack."""

BETAS = {
    "trades": {
        "kl": (2, 4, 6, 8, 10),
        "squared_l2": (6, 8, 16, 24),
        "js": (16, 24, 32, 48),
        "symmetric_kl": (4, 6, 8, 12, 16),
    },
    "st": {"squared_l2": (2, 3, 4, 6, 8), "js": (6, 8, 12, 16), "symmetric_kl": (2, 4, 6, 8, 10)},
}
"""Table 2: the β of Fig. 6, by method and divergence."""


class Figures(NamedTuple):
    """One row's accuracies by attack, and the attacks whose digits are reconstructed."""

    expected: dict[str, Expected | None]
    uncertain: tuple[str, ...] = ()


def _read_table(text: str) -> dict[str, Figures]:
    head, *lines = (line.split() for line in text.strip().splitlines())
    return {
        name: Figures(
            {attack: _read_cell(cell) for attack, cell in zip(head[1:], cells, strict=True) if cell != "–"},
            tuple(attack for attack, cell in zip(head[1:], cells, strict=True) if cell.startswith("~")),
        )
        for name, *cells in lines
    }


def _read_cell(cell: str) -> Expected | None:
    if cell == "lost":
        return None
    mean, _, half_width = cell.removeprefix("~").partition("±")
    return Expected(float(mean), float(half_width) if half_width else None)


FIGURES: dict[str, Figures] = {
    f"{table}/{row}": figures for table, text in _TABLES.items() for row, figures in _read_table(text).items()
}
"""The rows with numbers of their own, by preset name."""
