"""Networks that come with the package: their weights, cards, and records of their evaluations.

    NAME.safetensors   the weights, as `stcli train` writes them
    NAME.json          the card: how the network was made, and what was measured
    NAME.npz           the records of its evaluation with AutoAttack, an entry per image

`benchmarks/zoo_add.py` writes all three from a run and its evaluation.
"""

from stcore.zoo.card import FOLDER, PREFIX, Card, find, names, read_card, weights_path

__all__ = ["FOLDER", "PREFIX", "Card", "find", "names", "read_card", "weights_path"]
