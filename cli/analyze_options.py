"""The options of `stcli analyze`, of each analysis its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from stcore.cli.options import Groups
from stcore.cli.parsing import Int, MaybeInt, MaybeInts, MaybeNumber, MaybeNumbers, MaybeText, Number
from stcore.cli.table import left_out
from stcore.runs.record import find_runs

_FIGURE = ("figure", "names out formats dark")
_NETWORKS = ("networks and data", "checkpoint backend model dataset image_size batch_size device dtype threads")
Runs = tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="RUN…")]]


@dataclass(frozen=True, kw_only=True)
class OfAny:
    """The options of every analysis."""

    GROUPS: ClassVar[Groups] = (_FIGURE,)

    runs: Runs
    """Runs' folders, as `stcli train` leaves them."""
    names: MaybeText = None
    """What the runs are called in figure and table, separated by commas; by default as their folders are."""
    out: str = "analysis"
    """The folder for the figure and its numbers; files of the same names there are replaced."""
    formats: str = "png"
    """Of the figure, separated by commas: png, svg, pdf."""
    dark: bool = False
    """Draw on a dark ground."""

    def folders(self) -> Sequence[Path]:
        """Of the runs."""
        return self.runs


@dataclass(frozen=True, kw_only=True)
class OfCheckpoints(OfAny):
    """The options of analyses of networks."""

    GROUPS: ClassVar[Groups] = (_NETWORKS, _FIGURE)

    usual: ClassVar[int | None] = 1000

    runs: Runs
    """Runs' folders, as `stcli train` leaves them, or .safetensors files, which need --dataset."""
    checkpoint: MaybeText = None
    """Of each run: best, last, best-ema or last-ema; by default best."""
    backend: MaybeText = None
    """torch or keras, for all; by default the one that trained the first."""
    model: MaybeText = None
    """For weights files of a network of package.module:factory, that factory: no file alone has code run."""
    dataset: MaybeText = None
    """Where the data lies now, if it moved; for a weights file what to look at, such as cifar10."""
    image_size: MaybeInt = None
    """For weights files: make all images square, of this side in pixels, as in training."""
    batch_size: MaybeInt = None
    """Images at one time."""
    device: str = "auto"
    dtype: MaybeText = None
    """float32 or float64; by default the run's."""
    threads: MaybeInt = None
    step_size: MaybeNumber = None
    """Of the searches; by default an eighth of the run's ε, or of --epsilon: 1/255 at 8/255."""


@dataclass(frozen=True, kw_only=True)
class OnSubset(OfCheckpoints):
    """What those have in common that look at many images."""

    subset: MaybeText = None
    """Look at the first N test images (N), or at those from A up to B (A:B); by default the first 1000, or all."""


@dataclass(frozen=True, kw_only=True)
class CollaborativeOptions(OnSubset):
    """Loss of natural images and of collaborative examples, against the radius of the ball (Fig. 1).

    A search goes downhill on the cross-entropy from each image (Eq. 4), once for each radius.
    """

    budgets: MaybeNumbers = None
    """Radii, such as 4/255,8/255,16/255; by default half of the run's ε, itself, twice and four times as much."""
    steps: Int = 100
    """Of each search."""


@dataclass(frozen=True, kw_only=True)
class ExamplesOptions(OfCheckpoints):
    """Adversarial and collaborative examples as pictures, with their amplified perturbations (Figs. 2 and 11)."""

    usual: ClassVar[int | None] = None

    images: MaybeInts = None
    """Places in the test split, from 0, separated by commas; by default one drawn of each of --classes."""
    classes: MaybeInt = None
    """Without --images: how many classes, the first ones; by default 3."""
    seed: MaybeInt = None
    """Without --images: which are drawn; by default those of seed 0."""
    epsilon: MaybeNumber = None
    """Radius of the ball; by default twice the run's, for there to be something to see."""
    steps: Int = 100
    """Of each search."""


@dataclass(frozen=True, kw_only=True)
class LandscapeOptions(OnSubset):
    """Loss over the plane of the collaborative direction and one orthogonal to it, surface and contours (Fig. 3).

    The mean over some images, each with directions of its own. Points of the plane are not clipped to [0, 1].
    """

    usual: ClassVar[int | None] = 100

    subset: MaybeText = None
    """Look at the first N test images (N), or at those from A up to B (A:B); by default the first 100, or all."""
    images: MaybeInts = None
    """Instead of a subset: places in the test split, from 0, separated by commas; one gives its own landscape."""
    reach: MaybeNumber = None
    """How far the plane goes in each direction, in lengths of the collaborative perturbation; by default 2."""
    grid: Int = 21
    """Points along each direction."""
    seed: Int = 0
    """Of the orthogonal direction."""
    epsilon: MaybeNumber = None
    """Radius of the ball; by default the run's."""
    steps: Int = 100
    """Of the search."""


@dataclass(frozen=True, kw_only=True)
class AnglesOptions(OnSubset):
    """Angle between the adversarial and the collaborative perturbation of each image, step by step (Fig. 7)."""

    epsilon: MaybeNumber = None
    """Radius of the ball; by default the run's."""
    steps: Int = 20
    """Of both searches, which start from the image itself."""


@dataclass(frozen=True, kw_only=True)
class OfRuns(OfAny):
    """What those have in common that look at what runs logged and found."""

    runs: Runs
    """Runs' folders, as `stcli train` leaves them, folders that hold some, or globs. Runs that differ in their
    seed alone are one curve or point."""

    def folders(self) -> Sequence[Path]:
        return find_runs([str(run) for run in self.runs], left_out)


@dataclass(frozen=True, kw_only=True)
class CurvesOptions(OfRuns):
    """Natural and robust accuracy per epoch, on the split that the best epoch is chosen on (Figs. 4, 9, 10).

    Runs that are still training are shown as far as they are; of several seeds the mean, lowest and highest.
    """

    attack: MaybeText = None
    """What the robust accuracy is under, such as pgd20; by default what the best epoch is chosen by."""


@dataclass(frozen=True, kw_only=True)
class LossesOptions(OfRuns):
    """Mean cross-entropy per epoch of the natural, adversarial and collaborative points that training met.

    For squeeze training Fig. 8. Of what TRADES and its like find (Fig. 5), points with a lower loss than their
    image are collaborative, the others adversarial.
    """

    shade: Number = 0.1
    """What is shaded around a mean, in standard deviations over the epoch's examples."""


@dataclass(frozen=True, kw_only=True)
class RatioOptions(OfRuns):
    """Share of collaborative points, per epoch, among those that TRADES and its like find (Fig. 5)."""


@dataclass(frozen=True, kw_only=True)
class TradeoffOptions(OfRuns):
    """Natural against robust accuracy on the test split, over β, for methods and divergences (Fig. 6).

    `stcli sweep` trains the runs. What `stcli evaluate` found later counts, too.
    """

    attack: MaybeText = None
    """What the robust accuracy is under; by default autoattack where all runs have it, else pgd20."""
    checkpoint: str = "best"
    """best, last, best-ema or last-ema."""
    intervals: bool = False
    """With the 95 % intervals: over images for one run, over seeds for several."""
    paper: bool = False
    """With the points of Fig. 6 that the paper prints in its tables."""


OPTIONS: dict[str, type[Any]] = {
    "collaborative": CollaborativeOptions,
    "examples": ExamplesOptions,
    "landscape": LandscapeOptions,
    "curves": CurvesOptions,
    "losses": LossesOptions,
    "ratio": RatioOptions,
    "tradeoff": TradeoffOptions,
    "angles": AnglesOptions,
}
"""By analysis. An option of the name of one of its `Settings` is that setting; None leaves it as it is."""


def given(settings: type[Any], options: OfAny) -> dict[str, Any]:
    """The settings that the options say."""
    values = {field.name: getattr(options, field.name, None) for field in fields(settings)}
    return {name: value for name, value in values.items() if value is not None}
