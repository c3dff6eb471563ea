"""The attacks that break masked networks, as the audit's findings name them, with their commands."""

from __future__ import annotations

LAYER = "BPDA through the layer that masks (--bpda LAYER)"
"""For a layer without a useful gradient (Athalye, Carlini and Wagner, 2018)."""

NO_GRADIENTS = "Square (--attacks square)"
"""For gradients that are zero or mislead (Andriushchenko et al., 2020)."""

ANY_SCALE = "losses that no scale of the logits changes (--attacks apgd-dlr+apgd-t, or cw100)"
"""For a softmax that saturates or is flat (Carlini and Wagner, 2017; Croce and Hein, 2020)."""

AVERAGES = "autoattack-rand (--attacks autoattack-rand)"
"""For random networks: expectation over transformation (Athalye et al., 2018)."""

ALONE = "in a batch of its own (--batch-size 1)"
"""For networks that look at an image's neighbours."""
