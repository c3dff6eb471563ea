"""Attacks by name, with the exact settings of the paper's figures and tables (section 5).

    name             loss            start    ε      α      steps    which must be classified correctly
    fgsm             cross-entropy   x        ε      ε      1        the last iterate
    pgd20, pgd100    cross-entropy   uniform  ε      ε/4    20, 100  the last iterate
    cw100            C&W margin      uniform  ε      ε/4    100      the last iterate
    ifgsm            cross-entropy   x        ε      ε/10   10       the last iterate
    mifgsm           the same with momentum μ = 1
    pgd_trades       cross-entropy   uniform  0.031  0.003  20       the last iterate
    pgd_rst          cross-entropy   uniform  0.031  0.01   40       every iterate of 5 restarts; not x, no start
    pgd_rst_monitor  cross-entropy   x        0.031  0.007  20       every iterate; not x
    collaborative    −cross-entropy  x        ε      1/255  100      the last iterate
    apgd20           cross-entropy   x        ε      2ε*    20       x and every iterate (Auto-PGD, also in l1)
    deepfool         nearest of 9 others, x, 50 steps; the last iterate, projected to the ball of ε

* The first step of `apgd20`, ε in l1: Auto-PGD shortens it by itself. At the paper's ε = 8/255, ε/4 is its
α = 2/255, on SVHN too (whose training has 1/255). `pgd_trades` is the evaluation of TRADES (Zhang et al., 2019),
`pgd_rst` that of RST (Carmon et al., 2019). `pgd_rst_monitor` is Fig.
10's, there on the first 500 test images. 0.031 and 8/255 are different budgets, so these three keep their own.
`ifgsm` (Kurakin et al., 2017) and `mifgsm` are not in the paper; their settings are Dong et al.'s (2018).
`collaborative` (Eq. 4) is Fig. 1's, at ε of 4, 8, 16 and 32/255. `deepfool` has its authors' settings; with
fewer than ten classes it considers all of them.

NAME-rand is the attack of a name, but for DeepFool, with gradients averaged over 20 forwards: for random networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from stcore.attacks.ddn import DDN
from stcore.attacks.deepfool import DeepFool
from stcore.attacks.fmn import FMN
from stcore.attacks.minimum_norm import MinimumNorm
from stcore.attacks.pgd import FGSM, PGD, Attack
from stcore.attacks.short_apgd import ShortAPGD
from stcore.attacks.sigma_zero import SigmaZero
from stcore.base import checks
from stcore.errors import UsageError

_SCALED: Mapping[str, Callable[[float, str], Attack]] = {
    "fgsm": FGSM,
    "pgd20": lambda epsilon, norm: PGD(epsilon, epsilon / 4, 20, norm=norm),
    "pgd100": lambda epsilon, norm: PGD(epsilon, epsilon / 4, 100, norm=norm),
    "cw100": lambda epsilon, norm: PGD(epsilon, epsilon / 4, 100, norm=norm, loss="margin"),
    "ifgsm": lambda epsilon, norm: PGD(epsilon, epsilon / 10, 10, "natural", norm=norm),
    "mifgsm": lambda epsilon, norm: PGD(epsilon, epsilon / 10, 10, "natural", norm=norm, momentum=1.0),
    "apgd20": lambda epsilon, norm: ShortAPGD(epsilon, 20, norm),
    "deepfool": lambda epsilon, norm: DeepFool(norm=norm, epsilon=epsilon),
}
_LINF: Mapping[str, Callable[[float], PGD]] = {
    "pgd_trades": lambda epsilon: PGD(0.031, 0.003, 20),
    "pgd_rst": lambda epsilon: PGD(0.031, 0.01, 40, restarts=5, iterate="worst"),
    "pgd_rst_monitor": lambda epsilon: PGD(0.031, 0.007, 20, "natural", iterate="worst"),
    "collaborative": lambda epsilon: PGD(epsilon, 1 / 255, 100, "natural", loss="collaborative"),
}
PRESETS = (*_SCALED, *_LINF)
"""The names of all presets."""
SCALED = tuple(_SCALED)
"""Those whose radius is the one asked for."""
MINIMUM_NORM: Mapping[str, Callable[[float, str], MinimumNorm]] = {
    attack.NAME: attack for attack in (DDN, FMN, SigmaZero)
}
"""Minimum-norm attacks by name, with their authors' settings: (radius of an evaluation, norm) → the attack."""
RAND, SAMPLES = "-rand", 20
"""The end of an attack's name for random networks, and the forwards that it averages."""


def preset(name: str, epsilon: float, norm: str = "linf") -> Attack:
    """Returns the attack of this name at radius ε; `pgd_trades`, `pgd_rst` and `pgd_rst_monitor` keep ε = 0.031.

    name: one of `PRESETS`, or NAME-rand.   epsilon: in units of pixels in [0, 1].   norm: `linf` or `l2`; of
    `apgd20` also `l1`.
    Raises UsageError for an unknown name, and for a norm other than linf if the preset's settings are l∞ lengths.
    """
    plain = name.removesuffix(RAND)
    checks.choice("attack", name if plain == name or plain not in PRESETS else plain, PRESETS)
    if plain != name:
        attack = preset(plain, epsilon, norm)
        if not isinstance(attack, PGD):
            raise UsageError(f"attack: expected one that averages gradients before {RAND}; received {name!r}")
        return replace(attack, samples=SAMPLES)
    if name in _SCALED:
        return _SCALED[name](epsilon, norm)
    if norm != "linf":
        raise UsageError(
            f"norm: expected linf with the attack {name}, whose settings are l∞ lengths; received {norm!r}"
        )
    return _LINF[name](epsilon)
