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
    """digits (embedded, needs no file); cifar10, cifar100 or svhn, as stcli data fetch leaves them; cifar10:DIR,
    cifar100:DIR, svhn:DIR (the published files), parquet:DIR (train-*.parquet, test-*.parquet of encoded images),
    folder:DIR (train/CLASS/*.png, test/CLASS/*.png), hub:OWNER/NAME (Hugging Face), npz:DIR (train.npz, test.npz),
    safetensors:DIR (alike), npy:DIR (train_images.npy, train_labels.npy and so on; may be larger than memory) or
    stream:DIR (train-*.tar, test-*.tar in webdataset's layout, read epoch by epoch)."""
    model: str = "small-cnn"
    """small-cnn, resnet8, resnet18, preact-resnet18, wrn-D-K such as wrn-28-10, or vgg16-bn; timm:NAME (torch),
    keras.applications:NAME (keras), or package.module:factory, a function of yours that returns a network.
    With -silu behind our own names SiLU stands for ReLU."""
    normalize: str = "none"
    """What the network does to pixels first: none, cifar10, cifar100, svhn, imagenet, or MEAN/STD with a number
    for each channel, such as 0.49,0.48,0.45/0.25,0.24,0.26; with --pretrained by default what its weights want."""
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
    seeds: MaybeText = None
    """Train a run for each of these seeds, such as 1..7 or 1..3,7, each in a process of its own and in a folder of
    its own, out/seed1 …, and print the table over them. Given again, the same command goes on where it was."""
    devices: MaybeText = None
    """Of --seeds: train one run on each of these devices at a time, such as cuda:0,cuda:1."""
    json: bool = False
    """Print the result as JSON on stdout, a list with --seeds, and all else on stderr."""

    resume: MaybeText = None
    """Go on with the run in this folder, which was stopped or killed, to the weights and figures of a run without
    a break. Its settings are its own; beside it fit --dataset (if it moved), --device, --threads,
    --resident, --save-every, --max-hours and --json."""
    save_every: Number = 300.0
    """Seconds between two saves of the state within an epoch: what a kill can cost."""
    max_hours: MaybeNumber = None
    """Stop after so many hours as by Ctrl-C, with the state saved and exit code 130."""
    tensorboard: bool = False
    """Write each epoch's metrics for TensorBoard too, into the run's folder; a resumed run goes on with it."""

    epochs: Int = 30
    batch_size: Int = 128
    """Images to an update, over all devices."""
    accumulate: Int = 1
    """Send each batch through the network in so many parts, one after another, to save memory. Each part has batch
    statistics of its own, in the search too; without batch norm the update is the same."""
    sync_batch_norm: bool = False
    """Under torchrun on GPUs: batch statistics over all ranks, instead of each rank's own share."""
    learning_rate: Number = 0.1
    schedule: str = "step"
    """step (×0.1 at each drop), cosine, constant, or one-cycle (up to two fifths, then down, step by step)."""
    drops: tuple[Number, ...] = ()
    """Where `step` drops, as shares of the epochs."""
    momentum: Number = 0.9
    nesterov: bool = False
    weight_decay: Number = 5e-4
    """Coupled, on every tensor."""
    augment: str = "none"
    """none, crop-flip (zero-pad 4, random crop, horizontal flip), or crop-flip-cutout (and a black
    square of 14 / 32 of the side)."""
    pretrained: bool = False
    """Start from the weights that timm or keras.applications publishes, downloaded where they are not here yet."""
    init_weights: MaybeText = None
    """Start from this .safetensors file of the same network instead of fresh weights."""
    new_head: bool = False
    """With --init-weights of a network of other classes: the head starts afresh."""

    epsilon: Number = 8 / 255
    """Radius of the ball that examples are searched in, for pixels in [0, 1]."""
    step_size: Number = 2 / 255
    """Length α of an inner step; keeps the preset's share of ε unless given."""
    steps: Int = 10
    """Number K of inner steps."""
    early_steps: tuple[str, ...] = ()
    """Fewer at first: 3@0.3 5@0.6 for 3 until three tenths of the epochs are over, 5 until six tenths, then K."""
    norm: str = "linf"
    """linf or l2."""
    init: str = "gaussian"
    """Where the search starts: gaussian (noise_std·N(0, 1)), uniform (in the ball), natural (at, mart, gairat)."""
    noise_std: Number = 1e-3
    beta: Number = 6.0
    """Weight β of the divergence (all methods but standard, at and gairat)."""
    divergence: str = "symmetric_kl"
    """symmetric_kl, js, squared_l2, kl or improved_kl (st, trades)."""
    inner_divergence: MaybeText = None
    """Another divergence for the inner search (st)."""
    stop_gradient_targets: bool = True
    """Hold the targets of the symmetric KL constant, as the paper's released code does (st, trades)."""
    label_smoothing: Number = 0.0
    """Share of the labels that is spread over all classes, such as 0.1, in the cross-entropy of the loss (st, at,
    trades, at2, trades2)."""
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
    """The final evaluation's attacks, separated by commas: fgsm, pgd20, pgd100, cw100, ifgsm, mifgsm, deepfool,
    collaborative; pgd_trades, pgd_rst, pgd_rst_monitor, which have an ε of their own, 0.031."""
    eval_epsilon: Number = 8 / 255
    """Radius of the evaluation's attacks; by default the training's."""
    eval_norm: MaybeText = None
    """Norm of the evaluation's attacks: linf or l2; by default the training's."""
    eval_batch_size: Int = 250
    select: str = "val"
    """Where the best epoch is chosen: val (held out) or test (the paper's rule, optimistic)."""
    select_by: str = "pgd20"
    """What it is chosen by: natural, or the accuracy under fgsm, pgd20, pgd100, cw100, ifgsm, mifgsm, pgd_trades
    or pgd_rst_monitor."""

    on_trouble: str = "warn"
    """When an epoch's figures show trouble (not learning, collapse under attack, robust overfitting, a loss that
    is no number): warn, stop (early, and evaluate), or rollback (to the last good state, with a tenth of the
    learning rate from there; twice at most, then stop)."""

    seed: Int = 0
    device: str = "auto"
    """auto, cpu, cuda[:N] or mps (torch), cpu, gpu[:N] or, on JAX, tpu[:N] (keras)."""
    dtype: str = "float32"
    """float32 or float64."""
    precision: str = "fp32"
    """What the outer forwards of training, and their way back, reckon in: fp32, tf32 (torch on CUDA) or bf16
    (mixed: weights, losses and updates stay in float32). Evaluations are always in fp32."""
    inner_precision: MaybeText = None
    """The same for the search for examples; by default as --precision. Its projections stay in float32."""
    gradient_checkpointing: bool = False
    """Keep fewer activations, in the search and in the outer forwards, and compute them again in the way back:
    the same gradients with less memory, for one more forward to each way back. torch: by blocks, where the network
    has some; keras: each forward as a whole."""
    compile: str = "auto"
    """on, off or auto: torch.compile of the model (auto: off), one tf.function per step (auto: on); xla: that
    function by XLA too, once for each batch size (keras)."""
    resident: str = "auto"
    """Keep the training images on the device as bytes, and choose and augment batches there, with the same
    numbers: on, off, or auto: on an accelerator where they take less than a quarter of its free memory."""
    replicas: MaybeInt = None
    """Spread each batch over so many devices of this one process (keras on JAX). Weights are on each, batch
    statistics are those of the whole batch. torch: torchrun instead."""
    threads: MaybeInt = None
    """CPU threads."""
    deterministic: bool = False
    """Algorithms whose results do not depend on how threads meet, even where they are slower."""
    train_size: MaybeInt = None
    """Train on so many images, in the classes' proportions."""
    validation_size: MaybeInt = None
    test_size: MaybeInt = None
    """Evaluate on the first so many test images."""
    image_column: MaybeText = None
    """The column of images (parquet, hub); found by itself where it has a usual name."""
    label_column: MaybeText = None
    image_size: MaybeInt = None
    """Make all images square, of this side in pixels (folder, parquet, hub, stream): the shorter side is resized
    to it, the middle cut out."""


@dataclass(frozen=True)
class PlanOptions(TrainOptions):
    """Say what a run will cost before it begins: passes, operations, memory, and hours, from a measured probe.

    Takes the words of the `stcli train` command, and is to run where it will, with as little beside it. The probe
    makes some of its steps, on its own data, and leaves nothing behind.
    """

    probe_seconds: Number = 30.0
    """Time for the probe; the least there is to it, some steps and batches of each kind, is done in any case."""


@dataclass(frozen=True)
class Varied:
    """What a sweep has beside the options of its runs."""

    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting and its values, such as beta=1,2,4,6 or epsilon=4/255,8/255; given several times, in all
    combinations. Of preset, table2 stands for all rows of the paper below it (Fig. 6), table2/st for st's."""
    grid: MaybeText = None
    """A TOML file of settings with lists of values, such as beta = [1, 2]: all combinations. For a grid that is no
    whole product it has tables [[grid]], each of them with all combinations of its own and the settings above."""
    dry_run: bool = False
    """List the runs, and how far each of them is, and train none."""


@dataclass(frozen=True)
class SweepOptions(TrainOptions, Varied):  # in this order: --help then begins with what is varied
    """Train a run for each point of a grid of settings, and print the table over them.

    Takes the options of `stcli train`, --seeds, --devices and --max-hours (of all together) too. Each run has a
    folder named by its point, such as out/method=st,beta=6, and a process of its own. The same command, given
    again, skips what is finished and goes on where it was; another grid in the same folder adds its runs. What one
    run fails at does not keep the others from training; it is said at the end.
    """


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate the checkpoints of a run, or a weights file, on the test split, in either framework.

    With autoattack, or parts of it, the evaluation has a folder: killed, the same command goes on where it was.
    """

    run: tyro.conf.Positional[Path]
    """A run's folder, as `stcli train` leaves it, or a .safetensors file, which needs --dataset."""
    backend: MaybeText = None
    """torch or keras; by default the one that trained."""
    model: MaybeText = None
    """For a weights file of a network of package.module:factory, that factory: no file alone has code run."""
    attacks: str = "fgsm,pgd20"
    """Separated by commas: fgsm, pgd20, pgd100, cw100, ifgsm, mifgsm, deepfool, collaborative; pgd_trades,
    pgd_rst, pgd_rst_monitor, which have an ε of their own, 0.031; autoattack, autoattack-plus, autoattack-rand,
    autoattack-fast; its members apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square, also several joined by +."""
    fast: bool = False
    """autoattack's verdict for a fraction of its passes: autoattack-fast in its place."""
    epsilon: MaybeNumber = None
    """Radius of the attacks; by default the run's."""
    norm: MaybeText = None
    """linf, l2 or l1 (autoattack's attacks only); by default the run's. Another one needs its own --epsilon."""
    weights: MaybeText = None
    """Evaluate this .safetensors file instead of the run's own checkpoints."""
    checkpoint: MaybeText = None
    """Of the run: best, last, best-ema or last-ema; by default all there are."""
    batch_size: MaybeInt = None
    """Images at one time."""
    subset: MaybeText = None
    """Evaluate on the first N test images (N), or on those from A up to B (A:B); by default on the run's."""
    shard: MaybeText = None
    """Evaluate the i-th of n parts of these images (i/n, i from 1); stcli merge puts the parts together."""
    out: MaybeText = None
    """The evaluation's folder; with autoattack or --save-examples by default one in evaluations/, in the run's
    folder or beside the weights file."""
    save_every: Number = 30.0
    """Seconds between two saves of its state: what a kill can cost."""
    save_examples: bool = False
    """Keep the adversarial examples too."""
    engine: str = "native"
    """native, or reference: autoattack by the pyautoattack package, for comparison; it cannot be resumed."""
    audit: bool = True
    """Look for signs that the figures should not be believed, on the first 64 images (linf, l2)."""
    seed: MaybeInt = None
    """Seed of the attacks' noise; by default the run's."""
    device: str = "auto"
    dtype: MaybeText = None
    """float32 or float64; by default the run's."""
    threads: MaybeInt = None
    dataset: MaybeText = None
    """Where the data lies now, if it moved."""
    image_size: MaybeInt = None
    """For a weights file: make all images square, of this side in pixels, as in training."""
    predictions: MaybeText = None
    """Write the class predicted for each image, natural and under each attack, to this .json file."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class ImportOptions:
    """Turn a checkpoint that others released into a weights file that both frameworks load; no pickle is run.

    Knows the WRN, ResNet-18 and PreActResNet-18 of TRADES, MART, AWP, RST, GAIRAT, ST and RobustBench.
    """

    file: tyro.conf.Positional[Path]
    """The PyTorch file, such as .pt or .pth: a state dict, or a dict that holds one."""
    out: Path
    """The .safetensors file to write."""
    model: MaybeText = None
    """resnet18, preact-resnet18, wrn-D-K such as wrn-34-10, or another of ours; by default the one that fits."""
    key: MaybeText = None
    """Which state dict, where the file holds several, such as model_ema."""
    image_size: Int = 32
    """Side of its images in pixels, which weights do not tell."""


@dataclass(frozen=True)
class ExportOptions:
    """Write a trained network and its evaluation as an entry for RobustBench, which need not be installed.

    The accuracies are those of an evaluation of the same weights with AutoAttack on the whole test split.
    """

    to: tyro.conf.Positional[str]
    """robustbench."""
    weights: tyro.conf.Positional[Path]
    """A run's folder, as `stcli train` leaves it, or a .safetensors file."""
    evaluation: Path
    """The folder of a finished evaluation of these weights: --out and the checkpoint's name, such as aa/best."""
    name: str
    """The entry's: first author, year, first word of the title, such as Li2023Squeeze or Li2023Squeeze_RN18."""
    out: Path
    """The folder to write, new or empty."""
    title: str
    """The paper's."""
    authors: str
    """Separated by commas."""
    link: str
    """Where the paper is to be read."""
    venue: str
    """Such as ICLR 2023, or arXiv, Jun 2024."""
    additional_data: bool = False
    """Real images beside the data set's own were trained on (generated ones go into the footnote)."""
    reported: MaybeNumber = None
    """The paper's own robust accuracy in percent; by default the evaluation's."""
    footnote: MaybeText = None
    """What a reader of the leaderboard must know."""
    dataset: MaybeText = None
    """cifar10 or cifar100; by default what the evaluation calls it (parquet:DIR and npz:DIR do not say)."""
    checkpoint: str = "best"
    """Of a run: best, last, best-ema or last-ema."""
    draft: bool = False
    """Write it from fewer images or a fast AutoAttack too, marked as not to be submitted."""


@dataclass(frozen=True, kw_only=True)
class InDataFolder:
    """What the commands on the data folder have in common."""

    data_dir: MaybeText = None
    """The data folder; by default STCLI_DATA of the environment, else ~/.cache/stcore/data."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class DataListOptions(InDataFolder):
    """List the published data sets that can be fetched, and which of them are here."""


@dataclass(frozen=True)
class DataFetchOptions(InDataFolder):
    """Fetch a published data set into the data folder; a file with another SHA-256 is never kept."""

    name: tyro.conf.Positional[str]
    """cifar10, cifar100 or svhn."""
    mirror: MaybeText = None
    """A URL to try first: of the file, or of the folder that holds it under its published name."""
    offline: bool = False
    """Make no network call, as with STCLI_OFFLINE=1 in the environment: only say whether the set is here."""
    timeout: Number = 30.0
    """Seconds to wait for a connection, and for each next piece of a file, before the next mirror is tried."""


@dataclass(frozen=True)
class DataVerifyOptions(InDataFolder):
    """Hash the files of a published data set that are here, and compare with what was published."""

    name: tyro.conf.Positional[str]
    """cifar10, cifar100 or svhn."""


@dataclass(frozen=True)
class DataImportOptions(InDataFolder):
    """Copy a published file that was downloaded by hand into the data folder, if its SHA-256 is the right one."""

    file: tyro.conf.Positional[Path]
    """Such as cifar-10-python.tar.gz, cifar-100-python.tar.gz, train_32x32.mat; under any name."""


@dataclass(frozen=True)
class DataConvertOptions:
    """Write any data set as numpy files that training maps from the disk: --dataset npy:DIR."""

    dataset: tyro.conf.Positional[str]
    """As `stcli train --dataset` takes it; all but stream:DIR."""
    to: tyro.conf.Positional[str]
    """npy:DIR, a folder that is new or empty."""
    image_column: MaybeText = None
    """The column of images (parquet, hub); found by itself where it has a usual name."""
    label_column: MaybeText = None
    image_size: MaybeInt = None
    """As in training."""


@dataclass(frozen=True)
class DataInfoOptions:
    """Describe a data set as training gets it: of each part the size, image shape, classes and fingerprint."""

    dataset: tyro.conf.Positional[str]
    """As `stcli train --dataset` takes it, such as cifar10, parquet:DIR or npz:DIR."""
    image_column: MaybeText = None
    """The column of images (parquet, hub); found by itself where it has a usual name."""
    label_column: MaybeText = None
    image_size: MaybeInt = None
    """As in training."""
    json: bool = False
    """Print JSON instead of tables."""
