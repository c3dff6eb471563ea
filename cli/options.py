"""Options of the commands: flat, by the names that a run's config.toml holds, and their groups in `--help`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import tyro

from stcore import models
from stcore.base.registry import Registry
from stcore.cli.parsing import Int, MaybeInt, MaybeNumber, MaybeText, Number
from stcore.core.divergences import DIVERGENCES
from stcore.data.readers.sources import DATASETS
from stcore.evaluation.attack_names import ATTACKS
from stcore.methods import METHODS
from stcore.trackers import TRACKERS

REGISTRIES: Mapping[str, Registry[Any]] = {
    "attacks": ATTACKS,
    "dataset": DATASETS,
    "divergence": DIVERGENCES,
    "inner_divergence": DIVERGENCES,
    "method": METHODS,
    "model": models.MODELS,
    "track": TRACKERS,
}
"""The options that name a part → the registry that knows the names."""
Groups: TypeAlias = tuple[tuple[str, str], ...]
"""The sections of a command's `--help`: (title, names of options)."""

_OF_TRAINING: Groups = (
    ("common options", "backend dataset model method preset config out seed device json"),
    (
        "data",
        "augment mixup cutmix train_size validation_size test_size image_column label_column image_size "
        "skip_broken extra_data extra_fraction",
    ),
    ("model", "normalize pretrained init_weights new_head"),
    (
        "optimisation",
        "epochs batch_size accumulate optimizer learning_rate schedule drops drop_factor warmup momentum nesterov "
        "betas weight_decay decay_vectors layer_decay freeze clip_norm ema",
    ),
    (
        "search for examples (every method but standard)",
        "epsilon step_size steps norm init noise_std early_steps ramp",
    ),
    (
        "loss (of the methods named)",
        "beta divergence stop_gradient_targets label_smoothing examples combine",
    ),
    ("only of st", "inner_divergence"),
    ("only of trades", "share_natural adversarial_first"),
    ("only of gairat and gair-rst", "weighting shift begin_epoch confidence"),
    ("only of bat", "segments inner"),
    ("single step (fast-st, n-fgsm, fgsm-rs, fgsm-consistency)", "start_scale step_scale project search_mode"),
    ("only of e-at", "balls"),
    ("only of fast-st", "collaborative natural"),
    ("only of n-fgsm and fgsm-rs and fgsm-consistency", "consistency"),
    ("weight perturbation (any method)", "awp rwp perturbation_warmup rwp_steps rwp_threshold"),
    (
        "a teacher (any method that finds adversarial examples)",
        "teacher guidance teacher_share teacher_temperature teacher_weight teacher_begin",
    ),
    ("evaluation", "attacks eval_epsilon eval_norm eval_batch_size select select_by"),
    (
        "runtime",
        "dtype precision inner_precision gradient_checkpointing compile cuda_graph noise resident threads "
        "decode_workers deterministic sync_batch_norm replicas",
    ),
    (
        "interruptions, several runs, logging",
        "resume save_every max_hours on_trouble seeds devices track tensorboard",
    ),
)


@dataclass(frozen=True)
class TrainOptions:
    """Train a network by squeeze training or another method, then evaluate it.

    The defaults shown are those of the chosen preset, by default the data set's. Numbers may be fractions such as
    8/255.
    """

    GROUPS = _OF_TRAINING
    REGISTRIES = REGISTRIES

    backend: str = "torch"
    """The framework: torch or keras."""
    dataset: str = "digits"
    """digits (built in); cifar10, cifar100 or svhn, as stcli data fetch stores them; cifar10:DIR, cifar100:DIR,
    svhn:DIR (the published files), parquet:DIR (train-*.parquet, test-*.parquet of encoded images), folder:DIR
    (train/CLASS/*.png, test/CLASS/*.png), hub:OWNER/NAME (Hugging Face), npz:DIR (train.npz, test.npz),
    safetensors:DIR (train.safetensors, test.safetensors), npy:DIR (train_images.npy, train_labels.npy and so on;
    may be larger than memory), stream:DIR (train-*.tar, test-*.tar in webdataset's layout, read once per epoch) or
    package.module:load, your function that returns the images."""
    model: str = "small-cnn"
    """small-cnn, resnet8, resnet-s-W such as resnet-s-64, resnet18, preact-resnet18, wrn-D-K such as wrn-28-10, or
    vgg16-bn; timm:NAME (torch), keras.applications:NAME (keras), or package.module:factory, your function that
    returns a network. The suffix -silu on the first kind replaces ReLU by SiLU."""
    normalize: str = "none"
    """Normalisation of the pixels in the network's first layer: none, cifar10, cifar100, svhn, imagenet, or
    MEAN/STD with a number for each channel, such as 0.49,0.48,0.45/0.25,0.24,0.26. With --pretrained the default
    is the normalisation of the weights."""
    method: str = "st"
    """st (squeeze training), standard, at, trades, mart, collaborative (Eq. 5), the two-example variants at2,
    trades2, mart2, gairat, gair-rst, bat, e-at (several norms); by a single step: fast-st (squeeze training),
    n-fgsm, fgsm-rs or fgsm-consistency; or package.module:MyConfig, a method of your own, whose settings --help
    with it shows."""
    preset: str = "digits"
    """The recipe that sets every option not given: digits, cifar10, cifar100, svhn; finetune/sgd or finetune/adamw
    for pretrained networks; one that was run, such as fast/digits; or a row of the paper's tables such as
    table1/cifar10/st-awp (stcli presets lists them)."""
    config: MaybeText = None
    """A TOML file of options, such as an earlier run's config.toml; flags override it."""
    out: MaybeText = None
    """The run's folder, new or empty; by default a new one under runs/."""
    seeds: MaybeText = None
    """Train one run per seed, such as 1..7 or 1..3,7, each in its own process and folder (out/seed1, …), and print
    the table over them. The same command, run again, resumes what is unfinished."""
    devices: MaybeText = None
    """With --seeds: devices that each train one run at a time, such as cuda:0,cuda:1."""
    json: bool = False
    """Print the result as JSON on stdout (a list with --seeds); everything else goes to stderr."""

    resume: MaybeText = None
    """Resume the stopped or killed run in this folder; the result is that of an uninterrupted run. The run keeps
    its settings. Only --dataset (if it moved), --device, --threads, --resident, --decode-workers,
    --save-every, --max-hours, --track, --tensorboard and --json may be given with it."""
    save_every: Number = 300.0
    """Seconds between saves of the state within an epoch: at most this much work is lost to a kill."""
    max_hours: MaybeNumber = None
    """Stop after this many hours as on Ctrl-C: state saved, exit code 130."""
    track: MaybeText = None
    """Pass the metrics on to trackers, separated by commas: tensorboard (into the run's folder), wandb,
    trackio, mlflow, or package.module:MyTracker with the methods of stcore.Callback. A resumed run continues
    there."""
    tensorboard: bool = False
    """The same as --track tensorboard."""

    epochs: Int = 30
    """Passes over the training images."""
    batch_size: Int = 128
    """Images per update, over all devices."""
    accumulate: Int = 1
    """Split each batch into this many parts and accumulate their gradients, to save memory. Each part has its own
    batch-norm statistics, in the search too; without batch norm the update is the same."""
    sync_batch_norm: bool = False
    """Under torchrun on GPUs: batch-norm statistics over all ranks instead of each rank's share."""
    learning_rate: Number = 0.1
    """Learning rate at the start, or at the peak of one-cycle; of adamw 0.001 by default."""
    schedule: str = "step"
    """step (×0.1 at each drop), cosine, constant, or one-cycle (up during the first two fifths, then down, updated
    every step)."""
    drops: tuple[Number, ...] = ()
    """Drops of the step schedule, as fractions of the epochs."""
    drop_factor: Number = 0.1
    """Factor of the learning rate at each drop; ReBAT's 2/3 at 1/2 and 3/4 of the epochs keeps it high."""
    warmup: Number = 0.0
    """Epochs over which the learning rate rises linearly at first, step by step, to that of the schedule."""
    optimizer: str = "sgd"
    """sgd, or adamw for transformers and other pretrained networks."""
    momentum: MaybeNumber = 0.9
    """Momentum of SGD."""
    nesterov: bool = False
    """Nesterov momentum of SGD."""
    betas: tuple[Number, ...] = (0.9, 0.999)
    """The two means' factors of adamw: of the gradient, and of its square."""
    weight_decay: Number = 5e-4
    """Weight decay: of sgd coupled, as an L2 penalty; of adamw decoupled, and 0.05 by default."""
    decay_vectors: bool = True
    """Decay biases and normalisation too; by default with sgd, as in the paper."""
    layer_decay: MaybeNumber = None
    """Factor of the learning rate from each numbered block (or layer, if no name has a number) to the one before,
    such as 0.75; the head has the whole rate."""
    freeze: tuple[str, ...] = ()
    """Patterns of weights that are not trained, such as 'blocks.0.*'; running statistics still move."""
    clip_norm: MaybeNumber = None
    """The greatest norm of an update's gradient, over all weights, such as 1.0."""
    augment: str = "none"
    """none, flip (half the images, left to right), crop-flip (zero-pad 4, random crop, flip), crop-flip-cutout
    (also a black square of 14/32 of the side), trivial-augment (crop-flip, then one of 14 operations of random
    strength), or random-resized-crop-flip (a box of 8 to 100 % of the area, resized to the image's size)."""
    mixup: MaybeNumber = None
    """α: mix each batch's images and labels with those of the batch in reverse order, by a share from Beta(α, α);
    such as 0.2. With --cutmix too, each batch takes one of the two with equal chance."""
    cutmix: MaybeNumber = None
    """α: give each image a box of the other one, whose share of the area comes from Beta(α, α); the labels are
    mixed in the same shares. Such as 1.0."""
    pretrained: bool = False
    """Start from the weights that timm or keras.applications publishes; downloaded if not cached."""
    init_weights: MaybeText = None
    """Start from this .safetensors file, state dict of PyTorch (.pt, .pth) or zoo:NAME, of the same network."""
    new_head: bool = False
    """With --init-weights of a network with other classes: initialise a new head."""

    epsilon: Number = 8 / 255
    """Radius ε of the ball around each image, for pixels in [0, 1]."""
    step_size: Number = 2 / 255
    """Length α of a search step; by default the preset's fraction of ε."""
    steps: Int = 10
    """Number K of search steps."""
    early_steps: tuple[str, ...] = ()
    """Step curriculum: 3@0.3 5@0.6 takes 3 steps for the first 30 % of the epochs, 5 until 60 %, then K."""
    ramp: tuple[str, ...] = ()
    """Settings that rise linearly at first: epsilon@0.3 beta@1 for ε (and α with it) over the first 30 % of the
    epochs and β over all of them. Also start_scale and consistency."""
    norm: str = "linf"
    """Norm of the ball: linf or l2."""
    init: str = "gaussian"
    """Start of the search: gaussian (noise_std · N(0, 1)), uniform (in the ball), or natural (at, mart,
    gairat)."""
    noise_std: Number = 1e-3
    """Standard deviation of the gaussian start."""
    beta: Number = 6.0
    """Weight β of the divergence (all methods but standard, at, gairat and single-step ones without a squeeze)."""
    divergence: str = "symmetric_kl"
    """symmetric_kl, js, squared_l2, kl, improved_kl, gkl (classes weigh by their mean predictions of the epoch
    before; take beta 20) or package.module:function (st, fast-st, trades)."""
    inner_divergence: MaybeText = None
    """Divergence of the search, if another than that of the loss (st)."""
    stop_gradient_targets: bool = True
    """Hold the targets of the symmetric KL constant, as the paper's released code does (st, fast-st, trades)."""
    label_smoothing: Number = 0.0
    """Probability spread evenly over all classes, such as 0.1, in the cross-entropy of the loss (st, at, trades,
    at2, trades2 and the single-step methods)."""
    examples: Int = 1
    """Adversarial examples per image (at, trades, mart); at2, trades2 and mart2 have two."""
    combine: str = "mean"
    """How the terms of several examples are combined: mean or max (at, trades, mart and their two-example
    variants)."""
    share_natural: bool = False
    """Use one natural forward pass for both terms; the released code makes two (trades)."""
    adversarial_first: bool = False
    """Run adversarial before natural images through the network, as the AWP and RST code does (trades)."""
    weighting: str = "tanh"
    """Weight as a function of κ: tanh, sigmoid or discrete (gairat)."""
    shift: Number = -1.0
    """Shift λ of the weights (gairat, gair-rst)."""
    begin_epoch: Int = 60
    """First epoch with weights (gairat, gair-rst); by default half of the epochs."""
    confidence: Number = 50.0
    """Margin that the second search maximises up to (gair-rst)."""
    segments: Int = 2
    """Number m of segments from natural to adversarial (bat)."""
    inner: str = "cross_entropy"
    """Loss that the search maximises: cross_entropy or kl (bat)."""
    balls: tuple[str, ...] = ("linf:8/255", "l1:12")
    """NORM:RADIUS of the balls, one of which is drawn for each batch, by what training images withstand (e-at);
    NORM is linf, l2 or l1."""
    start_scale: Number = 1.0
    """Radius k of the uniform start, in units of ε; 0 starts at the image. With step_scale it takes the place of
    step_size, init and noise_std."""
    step_scale: Number = 1.0
    """Length α of a step in units of ε."""
    project: bool = True
    """Project each step to the ball; n-fgsm does not."""
    search_mode: str = "batch"
    """Batch norm in the search: eval (running statistics), batch (the batch's) or train (the batch's, which then
    move the running ones)."""
    collaborative: str = "start"
    """The collaborative example: start (the noisy start itself) or descent (a step down by the same
    gradient)."""
    natural: str = "start"
    """What the cross-entropy is taken of: start, or image, which costs a forward pass more."""
    consistency: Number = 0.0
    """Weight λ of the Jensen-Shannon divergence between start and example."""

    awp: MaybeNumber = None
    """Adversarial weight perturbation of size γ, such as 0.005; none switches off a preset's."""
    rwp: MaybeNumber = None
    """Robust weight perturbation of size γ; excludes --awp."""
    perturbation_warmup: Int = 0
    """First epoch with the weight perturbation."""
    rwp_steps: MaybeInt = None
    """Ascent steps of --rwp; by default 10."""
    rwp_threshold: MaybeNumber = None
    """Loss in nats below which an example takes part in --rwp; by default as published, 1.7, or 4.0 for
    CIFAR-100."""
    teacher: MaybeText = None
    """A second network that guides any method: average (the run's own average of the weights, by default with
    --ema 0.995), or the weights of a frozen one, FILE.safetensors or zoo:NAME."""
    guidance: MaybeText = None
    """What the teacher says: adr (labels mixed with its natural prediction, less where it is wrong; the default
    with average), distillation (the same, everywhere alike; the default with a file), rebat (to agree with its
    prediction for the adversarial example) or logits (to have its natural logits there)."""
    teacher_share: tuple[Number, ...] = ()
    """Share λ of the teacher in the labels, in the first and the last epoch (adr: 0.7 and 0.95, distillation: 1
    and 1)."""
    teacher_temperature: tuple[Number, ...] = ()
    """Temperature τ of its prediction, in the same two (adr: 2.5 and 2.0, distillation: 1 and 1)."""
    teacher_weight: MaybeNumber = None
    """Weight of the term (rebat, logits); by default 1."""
    teacher_begin: MaybeInt = None
    """First epoch with the term; by default that after 52 % of the epochs (rebat), or the first (logits)."""
    ema: MaybeNumber = None
    """Also keep an exponential moving average of the weights, with this decay per step, such as 0.995."""
    extra_data: MaybeText = None
    """Pseudo-labelled or generated data mixed into each batch: npz:FILE or ti500k:FILE."""
    extra_fraction: MaybeNumber = None
    """Fraction of each batch that is extra data; by default 0.5."""

    attacks: str = "fgsm,pgd20"
    """Attacks of the final evaluation, separated by commas: fgsm, pgd20, pgd100, cw100, ifgsm, mifgsm, apgd20,
    deepfool, collaborative; pgd_trades, pgd_rst, pgd_rst_monitor (at their own ε, 0.031); autoattack,
    autoattack-plus, autoattack-malt, autoattack-rand, autoattack-fast and its members, fmn, ddn and sigma-zero,
    NORM:RADIUS, unions and corruptions, as stcli evaluate takes them; package.module:make_attack."""
    eval_epsilon: Number = 8 / 255
    """Radius ε of the evaluation's attacks; by default that of training."""
    eval_norm: MaybeText = None
    """Norm of the evaluation's attacks: linf or l2; by default that of training."""
    eval_batch_size: Int = 250
    """Images per batch of the evaluation."""
    select: str = "val"
    """Split on which the best epoch is chosen: val (held out) or test (the paper's rule, optimistic)."""
    select_by: str = "pgd20"
    """Accuracy that chooses the best epoch: natural, or under fgsm, pgd20, pgd100, cw100, ifgsm, mifgsm,
    apgd20, pgd_trades, pgd_rst_monitor, one of them as NORM:RADIUS:NAME, a union of these, or an attack of your
    own (package.module:make_attack)."""

    on_trouble: str = "warn"
    """Failure policy when an epoch's metrics show trouble (no learning, collapse under attack, robust overfitting,
    a non-finite loss): warn, stop (early, then evaluate), or rollback (to the last good state with a tenth of the
    learning rate, or twice the steps of a short search that collapsed; at most twice, then stop)."""

    seed: Int = 0
    """Seed of initial weights, batches, augmentation and search noise."""
    device: str = "auto"
    """auto, cpu, cuda[:N] or mps (torch); cpu, gpu[:N] or, on JAX, tpu[:N] (keras)."""
    dtype: str = "float32"
    """Type of the weights: float32 or float64."""
    precision: str = "fp32"
    """Numeric precision of the training loss's forward and backward passes: fp32, tf32 (torch on CUDA) or bf16
    (mixed: weights, losses and updates stay in float32). Evaluations of a run always use fp32."""
    inner_precision: MaybeText = None
    """Numeric precision of the search; by default that of --precision. Its projections stay in float32."""
    gradient_checkpointing: bool = False
    """Keep fewer activations, in the search and in the loss, and recompute them in the backward pass: the same
    gradients with less memory, for one more forward pass per backward pass. torch: per block, if the network has
    blocks; keras: the whole forward pass."""
    noise: str = "host"
    """Where the search's noise is drawn: host (ahead of the step, the same numbers everywhere) or device (none is
    sent to it; other numbers for a seed, the same on each device only to about 1e-6; slow on a CPU)."""
    compile: str = "auto"
    """on, off or auto: torch.compile of the model (auto: off), one tf.function per step (auto: on); xla: that
    function compiled by XLA too, once per batch size (keras)."""
    cuda_graph: bool = False
    """Record the search as a CUDA graph and launch it as a whole, for the largest batches (torch on CUDA, without
    --compile on and --gradient-checkpointing). Never measured: compare the seconds of an epoch."""
    resident: str = "auto"
    """Keep the training images on the device as bytes, and draw and augment batches there, with the same numbers:
    on, off, or auto (on an accelerator if they take less than a quarter of its free memory)."""
    replicas: MaybeInt = None
    """Spread each batch over this many devices of one process (keras on JAX). Weights are on each device;
    batch-norm statistics are those of the whole batch. With torch use torchrun."""
    threads: MaybeInt = None
    """CPU threads."""
    decode_workers: MaybeInt = None
    """Threads that decode the next batches of a stream, one batch each, while a step runs; N hold at most N + 1
    batches. 0 decodes between the steps; by default one per core, at most 4. The numbers are the same (stream)."""
    deterministic: bool = False
    """Use only algorithms whose results do not depend on thread timing, even if they are slower."""
    train_size: MaybeInt = None
    """Train on N images, in the classes' proportions."""
    validation_size: MaybeInt = None
    """Validate on the first N validation images."""
    test_size: MaybeInt = None
    """Evaluate on the first N test images."""
    image_column: MaybeText = None
    """Column of images (parquet, hub); found automatically if it has a usual name."""
    label_column: MaybeText = None
    """Column of labels, with --image-column."""
    image_size: MaybeInt = None
    """Resize the shorter side of each image to this many pixels and crop the centre square (folder, parquet, hub,
    stream)."""
    skip_broken: bool = False
    """Leave out images that cannot be decoded, and say which (folder, parquet, hub); by default the first is an
    error."""


@dataclass(frozen=True)
class PlanOptions(TrainOptions):
    """Forecast what a run will cost: passes, operations, memory and hours, from a measured probe.

    Takes the options of `stcli train`. Run it on the machine that will train, while little else runs there. The
    probe makes a few real steps of the run on its own data and leaves no files behind.
    """

    GROUPS = (("the probe", "probe_seconds"), *_OF_TRAINING)

    probe_seconds: Number = 30.0
    """Seconds for the probe; a few steps and batches of each kind are always measured."""


@dataclass(frozen=True)
class Varied:
    """The options of a sweep, without those of its runs."""

    vary: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting and its values, such as beta=1,2,4,6 or epsilon=4/255,8/255. Given several times: all
    combinations. For preset, table2 stands for all rows of the paper below it (Fig. 6), table2/st for those of
    st."""
    grid: MaybeText = None
    """A TOML file of settings with lists of values, such as beta = [1, 2]: all combinations. For a grid that is
    not one product, tables [[grid]]: each is combined with the settings above it."""
    dry_run: bool = False
    """List the runs and their progress; train nothing."""
    optimize: MaybeText = None
    """Search instead of a grid: propose points by optuna for the highest accuracy of this kind (natural, pgd20) on
    the images that select the best epoch. A setting may then have a range, as learning_rate=0.01..0.3:log or
    steps=1..10. A run below the median of those before it is stopped."""
    cluster: MaybeText = None
    """Train each run as a job of slurm, or of this machine (local), by submitit, instead of one after another."""
    cluster_option: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """With --cluster: a parameter of submitit, such as timeout_min=480, gpus_per_node=1 or slurm_partition=gpu."""
    trials: Int = 20
    """With --optimize: how many points in all. The same command, run again, makes those that are left."""


@dataclass(frozen=True)
class SweepOptions(TrainOptions, Varied):
    """Train a run for each point of a grid of settings, and print the table over them.

    Takes the options of `stcli train`, also --seeds, --devices and --max-hours (for all runs together). Each run
    has its own process and a folder named by its point, such as out/method=st,beta=6. The same command, run again,
    skips finished runs and resumes the others; another grid in the same folder adds its runs. If one run fails,
    the others still train; the failure is reported at the end.
    """

    GROUPS = (("the sweep", "vary grid dry_run optimize trials cluster cluster_option"), *_OF_TRAINING)


@dataclass(frozen=True)
class EvaluateOptions:
    """Evaluate the checkpoints of a run, or a weights file, on the test split, in either framework.

    With autoattack, members of it, unions or corruptions, the evaluation has a folder: the same command, run
    again, resumes it.
    """

    GROUPS = (
        ("what is evaluated", "checkpoint weights dataset model image_size subset shard"),
        ("attacks", "attacks fast bpda epsilon norm corrupted seed engine audit"),
        ("runtime", "backend device dtype precision batch_size threads"),
        ("output", "out save_every save_examples predictions json"),
    )
    REGISTRIES = REGISTRIES

    run: tyro.conf.Positional[Path]
    """A run's folder, as `stcli train` leaves it, or zoo:NAME (stcli zoo list); or a .safetensors or PyTorch file,
    a folder of stcli export hub, or hf://OWNER/NAME, which need --dataset. A run's folder runs the code of the
    import paths in its config.toml."""
    backend: MaybeText = None
    """torch or keras; by default the one that trained."""
    model: MaybeText = None
    """For a weights file of a package.module:factory network: that factory. A file alone never runs code. For a
    state dict of PyTorch (.pt, .pth): its network."""
    attacks: str = "fgsm,pgd20"
    """Attacks, separated by commas: fgsm, pgd20, pgd100, cw100, ifgsm, mifgsm, deepfool, collaborative;
    pgd_trades, pgd_rst, pgd_rst_monitor (at their own ε, 0.031); autoattack, autoattack-malt, autoattack-plus,
    autoattack-rand, autoattack-fast; its members apgd-ce, apgd-dlr, apgd-pm, apgd-t, fab, fab-t, square, pma, also
    several joined by +, and malt before apgd-t or fab-t; NAME-rand, such as pgd20-rand, averages the gradients of
    a random network; fmn, ddn (l2), sigma-zero (l0), which look for the nearest example of each image;
    NORM:RADIUS[:ATTACK], an attack with its own norm and radius, such as l2:0.5 or l2:0.5:pgd20, by default
    autoattack; union:linf:8/255+l2:0.5, several of these, which an image must all withstand; corruptions,
    CIFAR-10-C's fifteen at five severities, or some: corruptions:fog+snow:1+3+5; package.module:make_attack, your
    function (epsilon, norm) that returns an attack."""
    fast: bool = False
    """Replace autoattack, in unions too, by autoattack-fast: two of its attacks in fewer steps, targets in MALT's
    order, for a ninth of the passes."""
    corrupted: MaybeText = None
    """Folder of published corrupted images for the attack corruptions, such as CIFAR-10-C's: gaussian_noise.npy, …
    and labels.npy; by default they are made from the test images."""
    epsilon: MaybeNumber = None
    """Radius ε of the attacks; by default the run's."""
    norm: MaybeText = None
    """linf, l2, l1 (autoattack's attacks and fmn) or l0 (fmn and sigma-zero; ε is a number of components); by
    default the run's. Another norm needs its own --epsilon."""
    weights: MaybeText = None
    """Evaluate this .safetensors or PyTorch file instead of the run's checkpoints."""
    checkpoint: MaybeText = None
    """Checkpoint of the run: best, last, best-ema or last-ema; by default all that exist."""
    batch_size: MaybeInt = None
    """Images per batch; by default the run's --eval-batch-size."""
    subset: MaybeText = None
    """Evaluate on the first N test images (N), or on images A to B (A:B); by default the run's."""
    shard: MaybeText = None
    """Evaluate the i-th of n parts of these images (i/n, i from 1); stcli merge joins the parts."""
    out: MaybeText = None
    """The evaluation's folder; with autoattack, fmn, ddn, sigma-zero, a union, corruptions or --save-examples by
    default one in
    evaluations/, in the run's folder, beside the weights file, or here for zoo:NAME."""
    save_every: Number = 30.0
    """Seconds between saves of the state: at most this much work is lost to a kill."""
    save_examples: bool = False
    """Keep the adversarial examples too."""
    engine: str = "native"
    """native, or reference: autoattack by the pyautoattack package, for comparison; it cannot be resumed."""
    audit: bool = True
    """Check the first 64 images for signs that the accuracies are overestimated (linf, l2)."""
    seed: MaybeInt = None
    """Seed of the attacks' noise; by default the run's."""
    device: str = "auto"
    """auto, cpu, cuda[:N] or mps (torch); cpu, gpu[:N] or, on JAX, tpu[:N] (keras)."""
    dtype: MaybeText = None
    """float32 or float64; by default the run's."""
    bpda: MaybeText = None
    """Layers, separated by commas, by name or type (such as Quantise), whose backward pass in the attacks is the
    identity's (BPDA): for layers that round or quantise, whose own gradient is of no use."""
    precision: str = "fp32"
    """Precision of the products in forward and backward passes: fp32, or tf32 (NVIDIA GPUs), which is faster and
    rounds to 10 bits. An evaluation in tf32 is another than in fp32, and named so everywhere."""
    threads: MaybeInt = None
    """CPU threads."""
    dataset: MaybeText = None
    """The data set, if it moved since training; required for a weights file."""
    image_size: MaybeInt = None
    """For a weights file: resize and crop all images to squares of this side in pixels, as in training."""
    predictions: MaybeText = None
    """Write the predicted class of each image, natural and under each attack, to this .json file."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class BracketOptions:
    """Bound robust accuracy from below by a proof and from above by attacks, image by image: at least, at most.

    The bracket has a folder: the same command, run again, resumes it.
    """

    GROUPS = (
        ("what is evaluated", "checkpoint weights dataset model image_size subset"),
        ("lower bound", "epsilon norm method smoothing selection samples alpha"),
        ("attacks", "attacks fast check seed"),
        ("runtime", "backend device dtype batch_size threads"),
        ("output", "out save_every json"),
    )
    REGISTRIES = REGISTRIES

    run: tyro.conf.Positional[Path]
    """A run's folder, as `stcli train` leaves it, or zoo:NAME (stcli zoo list); or a .safetensors or PyTorch file,
    a folder of stcli export hub, or hf://OWNER/NAME, which need --dataset. A run's folder runs the code of the
    import paths in its config.toml."""
    backend: MaybeText = None
    """torch or keras; by default the one that trained."""
    model: MaybeText = None
    """For a weights file of a package.module:factory network: that factory. A file alone never runs code. For a
    state dict of PyTorch (.pt, .pth): its network."""
    epsilon: MaybeNumber = None
    """Radius ε of the ball; by default the run's."""
    norm: MaybeText = None
    """linf, l2 or l1; by default the run's. Another norm needs its own --epsilon."""
    method: str = "alpha-crown"
    """intervals, crown or alpha-crown: the tightest bound to try; cheaper ones come first. For ReLU networks of at
    most a few hundred thousand weights."""
    smoothing: MaybeNumber = None
    """Instead certify the classifier that is smoothed by noise of this standard deviation, in l2, of any network.
    It is another classifier than the network, and none of the attacks is made on it."""
    selection: Int = 100
    """Noisy samples that select a class (smoothing)."""
    samples: Int = 1000
    """Other noisy samples, which estimate the probability of the class (smoothing)."""
    alpha: Number = 0.001
    """Probability that a certificate is wrong (smoothing)."""
    attacks: str = "autoattack"
    """Attacks on the images without a proof, separated by commas, as in stcli evaluate."""
    fast: bool = False
    """Replace autoattack by autoattack-fast: two of its attacks in fewer steps, for a ninth of the passes."""
    check: bool = False
    """Attack the proved images too; an attack that fools one is an error."""
    weights: MaybeText = None
    """Bracket this .safetensors or PyTorch file instead of the run's checkpoint."""
    checkpoint: MaybeText = None
    """Checkpoint of the run: best (the default), last, best-ema or last-ema."""
    batch_size: MaybeInt = None
    """Images per batch; by default the run's --eval-batch-size."""
    subset: MaybeText = None
    """Bracket the first N test images (N), or images A to B (A:B); by default the run's."""
    out: MaybeText = None
    """The bracket's folder; by default one in brackets/, in the run's folder, beside the weights file, or here for
    zoo:NAME."""
    save_every: Number = 30.0
    """Seconds between saves of the state: at most this much work is lost to a kill."""
    seed: MaybeInt = None
    """Seed of the attacks' and the smoothing's noise; by default the run's."""
    device: str = "auto"
    """auto, cpu, cuda[:N] or mps (torch); cpu, gpu[:N] or, on JAX, tpu[:N] (keras)."""
    dtype: MaybeText = None
    """float32 or float64; by default the run's."""
    threads: MaybeInt = None
    """CPU threads."""
    dataset: MaybeText = None
    """The data set, if it moved since training; required for a weights file."""
    image_size: MaybeInt = None
    """For a weights file: resize and crop all images to squares of this side in pixels, as in training."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class ZooListOptions:
    """List the networks that come with the package, with their accuracies and 95 % intervals."""

    json: bool = False
    """Print JSON instead of a table: the networks' cards."""


@dataclass(frozen=True)
class ZooShowOptions:
    """Show the card of a network that comes with the package: how it was made, and what was measured."""

    name: tyro.conf.Positional[str]
    """The network's name, as stcli zoo list prints it."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class ImportOptions:
    """Convert a published PyTorch checkpoint to a weights file that both frameworks load; no pickle is executed.

    Knows the WRN, ResNet-18 and PreActResNet-18 of TRADES, MART, AWP, RST, GAIRAT, ST and RobustBench.
    """

    file: tyro.conf.Positional[Path]
    """The PyTorch file, such as .pt or .pth: a state dict, or a dict that holds one."""
    out: Path
    """The .safetensors file to write."""
    model: MaybeText = None
    """resnet18, preact-resnet18, wrn-D-K such as wrn-34-10, or another of stcore's; by default the one that
    fits."""
    key: MaybeText = None
    """The state dict to read if the file holds several, such as model_ema."""
    image_size: Int = 32
    """Side of its images in pixels, which the weights do not determine."""


@dataclass(frozen=True, kw_only=True)
class OfNetwork:
    """The options by which a command loads a network."""

    checkpoint: MaybeText = None
    """Checkpoint of a run: best (the default), last, best-ema or last-ema."""
    backend: MaybeText = None
    """torch or keras; by default the first that is installed, for a third-party network its own."""
    model: MaybeText = None
    """For a weights file of a package.module:factory network: that factory. A file alone never runs code."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions(OfNetwork):
    """Classify photos: the class of each, and the probability of every class.

    Photos of any size are turned upright, cut to the largest centred part of the network's aspect ratio, resized
    and brought to its colours, as in training.
    """

    GROUPS = (("output", "format skip_broken"), ("the network", "checkpoint backend model device batch_size"))

    run: tyro.conf.Positional[str]
    """A run's folder, a weights file, zoo:NAME (stcli zoo list), a folder of stcli export hub, or hf://OWNER/NAME."""
    images: tyro.conf.Positional[tuple[Path, ...]]
    """Photos, and folders of photos, with all below them."""
    format: str = "csv"
    """csv, a line per photo, or json."""
    skip_broken: bool = False
    """Leave out photos that cannot be read, and say which; by default the first is an error (exit code 3)."""
    device: MaybeText = None
    """Where the network computes; by default torch's CPU, or where Keras puts it."""
    batch_size: Int = 250
    """Photos per batch."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions(OfNetwork):
    """Write a network as a file of another program, run that file, and compare it with the network.

    Beside the file stands preprocessing.json: the class names, and how a picture becomes the file's input.
    """

    GROUPS = (("what is exported", "out preprocessing images"), ("the network", "checkpoint backend model"))

    run: tyro.conf.Positional[str]
    """A run's folder, a weights file, zoo:NAME (stcli zoo list), a folder of stcli export hub, or hf://OWNER/NAME."""
    out: Path
    """The folder to write, new or empty."""
    preprocessing: MaybeText = None
    """inside: the file takes uint8 images (N, H, W, C) and scales and normalises them itself; beside: it takes
    floats that its user scales and normalises as preprocessing.json says. By default inside; state-dict and hub
    hold weights alone."""
    images: MaybeText = None
    """Photo, or folder of photos, to compare on; by default 100 images of the run's test split."""


@dataclass(frozen=True, kw_only=True)
class PushOptions(OfNetwork):
    """Upload a network to the Hugging Face hub, from which stcore.load("hf://OWNER/NAME") loads it.

    What is uploaded is what stcli export hub writes: weights, config.json, the model card, records of evaluations.
    The account is that of hf auth login, or of HF_TOKEN in the environment.
    """

    run: tyro.conf.Positional[str]
    """A run's folder, a weights file, zoo:NAME, or a folder of stcli export hub, which is uploaded as it is."""
    repository: tyro.conf.Positional[str]
    """The repository, OWNER/NAME; it is made if there is none."""
    private: bool = False
    """Make a new repository private."""


@dataclass(frozen=True)
class RobustBenchOptions:
    """Write a network and its evaluation as an entry for RobustBench, which need not be installed.

    The accuracies come from an evaluation of the same weights with AutoAttack on the whole test split.
    """

    GROUPS = (
        ("what is exported", "evaluation checkpoint dataset draft out"),
        ("the entry", "name title authors link venue additional_data reported footnote"),
    )

    weights: tyro.conf.Positional[Path]
    """A run's folder, as `stcli train` leaves it, or a .safetensors file."""
    evaluation: Path
    """Folder of a finished evaluation of these weights: its --out and the checkpoint's name, such as aa/best."""
    name: str
    """Name of the entry: first author, year, first word of the title, such as Li2023Squeeze or
    Li2023Squeeze_RN18."""
    out: Path
    """The folder to write, new or empty."""
    title: str
    """Title of the paper."""
    authors: str
    """Authors of the paper, separated by commas."""
    link: str
    """URL of the paper."""
    venue: str
    """Venue of the paper, such as ICLR 2023, or arXiv, Jun 2024."""
    additional_data: bool = False
    """The network was trained on real images beyond the data set's (generated ones go into the footnote)."""
    reported: MaybeNumber = None
    """Robust accuracy in percent that the paper reports; by default the evaluation's."""
    footnote: MaybeText = None
    """Footnote of the entry on the leaderboard."""
    dataset: MaybeText = None
    """cifar10 or cifar100; by default the evaluation's (required after parquet:DIR and npz:DIR)."""
    checkpoint: str = "best"
    """Checkpoint of a run: best, last, best-ema or last-ema."""
    draft: bool = False
    """Accept fewer images or a fast AutoAttack, and mark the entry as not to be submitted."""


@dataclass(frozen=True, kw_only=True)
class InDataFolder:
    """The options that the commands on the data folder share."""

    data_dir: MaybeText = None
    """The data folder; by default STCLI_DATA of the environment, else ~/.cache/stcore/data."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class DataListOptions(InDataFolder):
    """List the published data sets that can be fetched, and which of them are stored here."""


@dataclass(frozen=True)
class DataFetchOptions(InDataFolder):
    """Download a published data set into the data folder; a file with another SHA-256 is never kept."""

    name: tyro.conf.Positional[str]
    """cifar10, cifar100 or svhn."""
    mirror: MaybeText = None
    """URL to try first: of the file, or of the folder that holds it under its published name."""
    offline: bool = False
    """Make no network call, as with STCLI_OFFLINE=1 in the environment; only report whether the set is here."""
    timeout: Number = 30.0
    """Seconds to wait for a connection, and for each part of a file, before trying the next mirror."""


@dataclass(frozen=True)
class DataVerifyOptions(InDataFolder):
    """Compare the SHA-256 of the stored files of a published data set with the published ones."""

    name: tyro.conf.Positional[str]
    """cifar10, cifar100 or svhn."""


@dataclass(frozen=True)
class DataImportOptions(InDataFolder):
    """Copy a published file that was downloaded by hand into the data folder, if its SHA-256 is right."""

    file: tyro.conf.Positional[Path]
    """The file, under any name: cifar-10-python.tar.gz, cifar-100-python.tar.gz, train_32x32.mat or
    test_32x32.mat."""


@dataclass(frozen=True)
class DataCacheOptions:
    """List the decoded images that are kept for the next run, the last used first, or remove some.

    STCLI_DATA_CACHE in the environment names their folder, by default ~/.cache/stcore/decoded, or is off.
    """

    clear: MaybeText = None
    """Remove an entry, by the beginning of its name, or all."""
    limit: MaybeNumber = None
    """Remove the least recently used entries until the others take at most this many GiB. Each run that adds one
    does so with STCLI_DATA_CACHE_GB of the environment, by default 8."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Reading:
    """The options of a data set's format."""

    image_column: MaybeText = None
    """Column of images (parquet, hub); found automatically if it has a usual name."""
    label_column: MaybeText = None
    """Column of labels, with --image-column."""
    image_size: MaybeInt = None
    """As in training: resize the shorter side and crop the centre square (folder, parquet, hub, stream)."""
    skip_broken: bool = False
    """As in training: leave out images that cannot be decoded (folder, parquet, hub)."""


@dataclass(frozen=True, kw_only=True)
class DataConvertOptions(Reading):
    """Write any data set as numpy files that training memory-maps: --dataset npy:DIR."""

    dataset: tyro.conf.Positional[str]
    """As `stcli train --dataset` takes it; all but stream:DIR."""
    to: tyro.conf.Positional[str]
    """npy:DIR, a folder that is new or empty."""


@dataclass(frozen=True, kw_only=True)
class DataInfoOptions(Reading):
    """Describe a data set as training reads it: for each split its size, image shape, classes and fingerprint."""

    dataset: tyro.conf.Positional[str]
    """As `stcli train --dataset` takes it, such as cifar10, parquet:DIR or npz:DIR."""
    json: bool = False
    """Print JSON instead of tables."""
