"""Options of `stcli analyze`, a class per analysis."""

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
    """Names of the runs in figure and table, separated by commas; by default those of their folders."""
    out: str = "analysis"
    """Folder for the figure and its numbers; files with the same names are replaced."""
    formats: str = "png"
    """Formats of the figure, separated by commas: png, svg, pdf."""
    dark: bool = False
    """Draw on a dark background."""

    def folders(self) -> Sequence[Path]:
        """The runs' folders."""
        return self.runs


@dataclass(frozen=True, kw_only=True)
class OfCheckpoints(OfAny):
    """The options of analyses of networks."""

    GROUPS: ClassVar[Groups] = (_NETWORKS, _FIGURE)

    usual: ClassVar[int | None] = 1000

    runs: Runs
    """Runs' folders, as `stcli train` leaves them, or .safetensors files, which need --dataset."""
    checkpoint: MaybeText = None
    """Checkpoint of each run: best, last, best-ema or last-ema; by default best."""
    backend: MaybeText = None
    """torch or keras, for all runs; by default the one that trained the first."""
    model: MaybeText = None
    """For weights files of a package.module:factory network: that factory. A file alone never runs code."""
    dataset: MaybeText = None
    """The data set, if it moved since training; for a weights file the data to use, such as cifar10."""
    image_size: MaybeInt = None
    """For weights files: resize and crop all images to squares of this side in pixels, as in training."""
    batch_size: MaybeInt = None
    """Images per batch."""
    device: str = "auto"
    """auto, cpu, cuda[:N] or mps (torch); cpu, gpu[:N] or, on JAX, tpu[:N] (keras)."""
    dtype: MaybeText = None
    """float32 or float64; by default the run's."""
    threads: MaybeInt = None
    """CPU threads."""
    step_size: MaybeNumber = None
    """Step of the searches; by default an eighth of the run's ε, or of --epsilon: 1/255 at 8/255."""


@dataclass(frozen=True, kw_only=True)
class OnSubset(OfCheckpoints):
    """The options of analyses of many images."""

    subset: MaybeText = None
    """Use the first N test images (N), or images A to B (A:B); by default the first 1000, or all."""


@dataclass(frozen=True, kw_only=True)
class CollaborativeOptions(OnSubset):
    """Loss of natural images and of collaborative examples, against the radius of the ball (Fig. 1).

    A search minimises the cross-entropy from each image (Eq. 4), once per radius.
    """

    budgets: MaybeNumbers = None
    """Radii, such as 4/255,8/255,16/255; by default the run's ε times 1/2, 1, 2 and 4."""
    steps: Int = 100
    """Steps of each search."""


@dataclass(frozen=True, kw_only=True)
class ExamplesOptions(OfCheckpoints):
    """Adversarial and collaborative examples as pictures, with their amplified perturbations (Figs. 2 and 11)."""

    usual: ClassVar[int | None] = None

    images: MaybeInts = None
    """Indices in the test split, from 0, separated by commas; by default one image drawn from each of
    --classes."""
    classes: MaybeInt = None
    """Without --images: number of classes, the first ones; by default 3."""
    seed: MaybeInt = None
    """Without --images: seed of the draw; by default 0."""
    epsilon: MaybeNumber = None
    """Radius of the ball; by default twice the run's, so that the change is visible."""
    steps: Int = 100
    """Steps of each search."""


@dataclass(frozen=True, kw_only=True)
class LandscapeOptions(OnSubset):
    """Loss over the plane of the collaborative direction and one orthogonal to it, surface and contours (Fig. 3).

    The mean over the images, each with its own directions. Points of the plane are not clipped to [0, 1].
    """

    usual: ClassVar[int | None] = 100

    subset: MaybeText = None
    """Use the first N test images (N), or images A to B (A:B); by default the first 100, or all."""
    images: MaybeInts = None
    """Instead of a subset: indices in the test split, from 0, separated by commas; one index gives that image's
    landscape."""
    reach: MaybeNumber = None
    """Half-width of the plane in each direction, in lengths of the collaborative perturbation; by default 2."""
    grid: Int = 21
    """Points along each direction."""
    seed: Int = 0
    """Seed of the orthogonal direction."""
    epsilon: MaybeNumber = None
    """Radius of the ball; by default the run's."""
    steps: Int = 100
    """Steps of the search."""


@dataclass(frozen=True, kw_only=True)
class AnglesOptions(OnSubset):
    """Angle between the adversarial and the collaborative perturbation of each image, step by step (Fig. 7)."""

    epsilon: MaybeNumber = None
    """Radius of the ball; by default the run's."""
    steps: Int = 20
    """Steps of both searches, which start from the natural image."""


@dataclass(frozen=True, kw_only=True)
class OfRuns(OfAny):
    """The options of analyses of what runs logged."""

    runs: Runs
    """Runs' folders, as `stcli train` leaves them, folders of runs, or globs. Runs that differ only in their seed
    make one curve or point."""

    def folders(self) -> Sequence[Path]:
        return find_runs([str(run) for run in self.runs], left_out)


@dataclass(frozen=True, kw_only=True)
class CurvesOptions(OfRuns):
    """Natural and robust accuracy per epoch, on the split that the best epoch is chosen on (Figs. 4, 9, 10).

    Runs still in training are shown up to their last epoch; several seeds as mean, lowest and highest.
    """

    attack: MaybeText = None
    """Attack of the robust accuracy, such as pgd20; by default the one that chooses the best epoch."""


@dataclass(frozen=True, kw_only=True)
class LossesOptions(OfRuns):
    """Mean cross-entropy per epoch of the natural, adversarial and collaborative points seen in training.

    Fig. 8 for squeeze training. Among the points that TRADES and similar methods find (Fig. 5), those with a lower
    loss than their image are collaborative, the others adversarial.
    """

    shade: Number = 0.1
    """Half-width of the shading around a mean, in standard deviations over the epoch's examples."""


@dataclass(frozen=True, kw_only=True)
class RatioOptions(OfRuns):
    """Share of collaborative points per epoch among those that TRADES and similar methods find (Fig. 5)."""


@dataclass(frozen=True, kw_only=True)
class TradeoffOptions(OfRuns):
    """Natural against robust accuracy on the test split, over β, for methods and divergences (Fig. 6).

    `stcli sweep` trains the runs. Later results of `stcli evaluate` count too.
    """

    attack: MaybeText = None
    """Attack of the robust accuracy; by default autoattack if all runs have it, else pgd20."""
    checkpoint: str = "best"
    """Checkpoint: best, last, best-ema or last-ema."""
    intervals: bool = False
    """Draw 95 % intervals: over images for one run, over seeds for several."""
    paper: bool = False
    """Add the points of Fig. 6 that the paper prints in its tables."""


@dataclass(frozen=True, kw_only=True)
class RobustnessCurveOptions(OfAny):
    """Robust accuracy against ε, from the minimum norms of stcli evaluate RUN --attacks fmn (ddn, sigma-zero).

    A curve per network and attack with its 95 % band over the images, and one of the smallest norms of all attacks
    on a network; attacks in a ball are points. The median is over the images that are classified correctly.
    """

    runs: Runs
    """Runs' folders, of which all evaluations of a checkpoint count, or folders of evaluations."""
    norm: MaybeText = None
    """linf, l2, l1 or l0; by default that of the evaluations, if it is the same for all."""
    checkpoint: str = "best"
    """Checkpoint of the runs: best, last, best-ema or last-ema."""


OPTIONS: dict[str, type[Any]] = {
    "collaborative": CollaborativeOptions,
    "examples": ExamplesOptions,
    "landscape": LandscapeOptions,
    "curves": CurvesOptions,
    "losses": LossesOptions,
    "ratio": RatioOptions,
    "tradeoff": TradeoffOptions,
    "angles": AnglesOptions,
    "robustness-curve": RobustnessCurveOptions,
}
"""Analysis → its options. An option named like a field of its `Settings` sets it; None keeps the default."""


def given(settings: type[Any], options: OfAny) -> dict[str, Any]:
    """The settings that the options give."""
    values = {field.name: getattr(options, field.name, None) for field in fields(settings)}
    return {name: value for name, value in values.items() if value is not None}
