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
    """digits (embedded, needs no file) or parquet:DIR (train-*.parquet, test-*.parquet of encoded images)."""
    model: str = "small-cnn"
    """small-cnn, resnet8, resnet18, preact-resnet18, wrn-D-K such as wrn-28-10, or vgg16-bn."""
    method: str = "st"
    """st (squeeze training), at (adversarial training) or standard."""
    preset: str = "digits"
    """The recipe that completes what is not given: digits, cifar10, cifar100 or svhn."""
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
    """Where the search starts: gaussian (noise_std·N(0, 1)), uniform (in the ball), natural (at only)."""
    noise_std: Number = 1e-3
    beta: Number = 6.0
    """Weight β of the divergence (st)."""
    divergence: str = "symmetric_kl"
    """symmetric_kl, js, squared_l2 or kl (st)."""
    inner_divergence: MaybeText = None
    """Another divergence for the inner search (st)."""
    stop_gradient_targets: bool = True
    """Hold the target of each KL term constant, as the paper's released code does (st)."""

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
