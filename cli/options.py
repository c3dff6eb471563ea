"""The options of the commands, flat; a run's config.toml holds the same names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from stcore.cli.parsing import Int, MaybeInt, MaybeNumber, MaybeText, Number


@dataclass(frozen=True)
class TrainOptions:
    """Train a network by squeeze training, or another method, and evaluate it.

    The defaults shown are those of the chosen data set's preset. Fractions such as 8/255 are numbers.
    """

    backend: str = "torch"
    """The framework: torch or keras."""
    dataset: str = "digits"
    """digits (embedded, needs no file), cifar10:DIR, cifar100:DIR, svhn:DIR (the published files), parquet:DIR
    (train-*.parquet, test-*.parquet of encoded images) or npz:DIR (train.npz, test.npz)."""
    model: str = "small-cnn"
    """small-cnn, resnet8, resnet18, preact-resnet18, wrn-D-K such as wrn-28-10, or vgg16-bn."""
    method: str = "st"
    """st (squeeze training), standard, at, trades, mart, collaborative (Eq. 5), the two-example variants at2,
    trades2, mart2, gairat, gair-rst or bat."""
    preset: str = "digits"
    """The recipe that completes what is not given: digits, cifar10, cifar100, svhn, or a row of the paper's
    tables such as table1/cifar10/st-awp (stcli presets lists them)."""
    config: MaybeText = None
    """A TOML file of options, such as an earlier run's config.toml; flags override it."""
    out: MaybeText = None
    """The run's folder, new or empty; by default one under runs/."""

    epochs: Int = 30
    batch_size: Int = 128
    learning_rate: Number = 0.1
    schedule: str = "step"
    """step (×0.1 at each drop), cosine, or constant."""
    drops: tuple[Number, ...] = ()
    """Where `step` drops, as shares of the epochs."""
    momentum: Number = 0.9
    nesterov: bool = False
    weight_decay: Number = 5e-4
    """Coupled, on every tensor."""
    augment: str = "none"
    """none, or crop-flip (zero-pad 4, random crop, horizontal flip)."""
    init_weights: MaybeText = None
    """Start from this .safetensors file of the same network instead of fresh weights."""

    epsilon: Number = 8 / 255
    """Radius of the ball that examples are searched in, for pixels in [0, 1]."""
    step_size: Number = 2 / 255
    """Length α of an inner step; keeps the preset's share of ε unless given."""
    steps: Int = 10
    """Number K of inner steps."""
    norm: str = "linf"
    """linf or l2."""
    init: str = "gaussian"
    """Where the search starts: gaussian (noise_std·N(0, 1)), uniform (in the ball), natural (at, mart, gairat)."""
    noise_std: Number = 1e-3
    beta: Number = 6.0
    """Weight β of the divergence (all methods but standard, at and gairat)."""
    divergence: str = "symmetric_kl"
    """symmetric_kl, js, squared_l2 or kl (st, trades)."""
    inner_divergence: MaybeText = None
    """Another divergence for the inner search (st)."""
    stop_gradient_targets: bool = True
    """Hold the targets of the symmetric KL constant, as the paper's released code does (st, trades)."""
    examples: Int = 1
    """Neighbours of each image (at, trades, mart); at2, trades2 and mart2 have two."""
    combine: str = "mean"
    """Of several neighbours' terms: mean or max."""
    share_natural: bool = False
    """One natural forward for both terms, instead of the released code's two (trades)."""
    adversarial_first: bool = False
    """Forward adversarial before natural images, as the AWP and RST code does (trades)."""
    weighting: str = "tanh"
    """tanh, sigmoid or discrete (gairat)."""
    shift: Number = -1.0
    """λ of the weights (gairat, gair-rst)."""
    begin_epoch: Int = 60
    """First epoch with weights (gairat, gair-rst); by default half-way."""
    confidence: Number = 50.0
    """Margin that the second search climbs to (gair-rst)."""
    segments: Int = 2
    """Number m of strides from natural to adversarial (bat)."""
    inner: str = "cross_entropy"
    """What the search climbs: cross_entropy or kl (bat)."""

    awp: MaybeNumber = None
    """Adversarial weight perturbation of this size γ, such as 0.005, with any method; none drops a preset's."""
    rwp: MaybeNumber = None
    """Robust weight perturbation of this size γ instead."""
    perturbation_warmup: Int = 0
    """The perturbation acts from this epoch on."""
    rwp_steps: MaybeInt = None
    """Ascents of rwp; 10 by default."""
    rwp_threshold: MaybeNumber = None
    """Only examples with a smaller loss direct it, in nats; by default as published, 1.7 or 4.0 (CIFAR-100)."""
    ema: MaybeNumber = None
    """Keep an average of the weights too, with this decay per step, such as 0.995."""
    extra_data: MaybeText = None
    """Pseudo-labelled or generated data mixed into each batch: npz:FILE or ti500k:FILE."""
    extra_fraction: MaybeNumber = None
    """Share of each batch that is extra data; 0.5 by default."""

    attacks: str = "fgsm,pgd20"
    """The final evaluation's attacks: fgsm, pgd20, pgd100, separated by commas."""
    eval_epsilon: Number = 8 / 255
    """Radius of the evaluation's attacks; by default the training's."""
    eval_batch_size: Int = 250
    select: str = "val"
    """Where the best epoch is chosen: val (held out) or test (the paper's rule, optimistic)."""
    select_by: str = "pgd20"
    """What it is chosen by: an attack's accuracy, or natural."""

    seed: Int = 0
    device: str = "auto"
    """auto, cpu, cuda[:N] or mps (torch), cpu or gpu[:N] (keras)."""
    dtype: str = "float32"
    """float32 or float64."""
    compile: str = "auto"
    """on, off or auto: torch.compile of the model (auto: off), one tf.function per step (auto: on)."""
    threads: MaybeInt = None
    """CPU threads."""
    train_size: MaybeInt = None
    """Train on so many images, in the classes' proportions."""
    validation_size: MaybeInt = None
    test_size: MaybeInt = None
    """Evaluate on the first so many test images."""
    image_column: MaybeText = None
    """The parquet column of images; found by itself where it has a usual name."""
    label_column: MaybeText = None


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate the best and the last checkpoint of a run on its test split, in either framework."""

    run: tyro.conf.Positional[Path]
    """The run's folder, as `stcli train` leaves it."""
    backend: MaybeText = None
    """torch or keras; by default the one that trained."""
    attacks: str = "fgsm,pgd20"
    """fgsm, pgd20, pgd100, separated by commas."""
    epsilon: MaybeNumber = None
    """Radius of the attacks; by default the run's."""
    weights: MaybeText = None
    """Evaluate this .safetensors file instead of the run's own checkpoints."""
    batch_size: MaybeInt = None
    test_size: MaybeInt = None
    """Evaluate on the first so many test images."""
    seed: MaybeInt = None
    """Seed of the attacks' starts; by default the run's."""
    device: str = "auto"
    dtype: MaybeText = None
    """float32 or float64; by default the run's."""
    threads: MaybeInt = None
    dataset: MaybeText = None
    """Where the data lies now, if it moved."""
    predictions: MaybeText = None
    """Write the class predicted for each image, natural and under each attack, to this .json file."""
    json: bool = False
    """Print JSON instead of a table."""
