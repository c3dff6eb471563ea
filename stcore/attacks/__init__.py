"""Attacks for evaluation, with the paper's settings by name.

`PGD` is the family of projected gradient attacks on whole batches, `FGSM(epsilon)` its one-step member; `DeepFool`
steps to the nearest decision boundary. `DDN` (l2), `FMN` (l∞, l2, l1, l0) and `SigmaZero` (l0) look for the
nearest adversarial example of each image. Each is a frozen dataclass. `attack(model, x, y)`, on a
`torch.nn.Module` or `keras.Model` with native pixels x (B, …) in [0, 1] and integer labels y (B,), returns
adversarial examples shaped like x. Mode, statistics, weights and gradients of the model stay unchanged.

`bpda(model, layers)` is a context in which layers without a gradient have another function's.

`preset(name, epsilon, norm)` makes one of `PRESETS`, tabulated in `stcore.attacks.presets`. `Attack` is the
protocol that `stcore.evaluate` asks of any attack.
"""

from __future__ import annotations

from stcore.attacks.bpda import bpda
from stcore.attacks.ddn import DDN
from stcore.attacks.deepfool import DeepFool
from stcore.attacks.fmn import FMN
from stcore.attacks.pgd import FGSM, PGD, Attack
from stcore.attacks.presets import PRESETS, preset
from stcore.attacks.sigma_zero import SigmaZero

__all__ = ["DDN", "FGSM", "FMN", "PGD", "PRESETS", "Attack", "DeepFool", "SigmaZero", "bpda", "preset"]
