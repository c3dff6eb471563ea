"""`stcli doctor`: shows versions and devices, and tests each installed backend."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Iterator, Sequence

import numpy as np

from stcore import errors, models
from stcore.api.steps import train_step
from stcore.base.registry import package_of, plug_ins
from stcore.base.version import __version__
from stcore.cli.console import make_console
from stcore.cli.options import REGISTRIES
from stcore.cli.quiet import load_quietly
from stcore.core.dispatch import BACKENDS, available_backends, missing_packages, remedy
from stcore.core.optimizers import SGD
from stcore.data import load_digits
from stcore.presets import SQUEEZE


def main(args: Sequence[str]) -> int:
    """Prints the findings; returns 0 if every installed backend passes its self-test, 1 if one fails."""
    if args in (["-h"], ["--help"]):
        print("usage: stcli doctor\n\nShow versions, devices and backends, and test each installed backend.")
        return errors.OK
    if args:
        raise errors.UsageError(f"doctor takes no options; received {' '.join(args)}")
    console = make_console()
    console.print(f"stcore {__version__}, Python {platform.python_version()}, numpy {np.__version__}")
    console.print(f"{platform.platform()}")
    for line in plug_in_lines():
        console.print(line, markup=False)
    healthy = True
    for name in BACKENDS:
        if missing := missing_packages(name):
            console.print(
                f"{name}: not installed ({', '.join(missing)}); {remedy(name)}",
                markup=False,
            )
            continue
        try:
            console.print(f"{name}: {check(name)}")
        except Exception as error:
            healthy = False
            console.print(f"{name}: FAILED: {type(error).__name__}: {error}", markup=False)
    if not available_backends():
        if "KERAS_BACKEND" in remedy("keras"):
            raise errors.UsageError(f"no backend is ready: {remedy('keras')}")
        raise errors.UsageError("no backend is installed: in the repository, pip install '.[torch]' or '.[keras]'")
    return errors.OK if healthy else errors.BUG


def plug_in_lines() -> Iterator[str]:
    """What installed packages bring, a line each; nothing of theirs is imported."""
    for registry in {one.group: one for one in REGISTRIES.values()}.values():
        for name, points in plug_ins(registry.group).items():
            packages = " and ".join(map(package_of, points))
            hidden = f"; hidden by stcore's own: name it as {points[0].value}" if name in registry else ""
            twice = "; ambiguous: name it as package.module:name" if len(points) > 1 else ""
            yield f"{registry.kind} {name}: of {packages}{hidden or twice}"


def check(name: str) -> str:
    """Trains a tiny network for a few steps; returns a summary. Raises RuntimeError if the loss does not fall."""
    backend = load_quietly(name)
    device = backend.use_device("auto")
    begun = time.perf_counter()
    digits = load_digits().test.head(64)
    model = models.build(
        "tiny",
        name,  # type: ignore[arg-type]
        num_classes=10,
        in_channels=1,
        image_size=(8, 8),
        device=device if name == "torch" else None,
    )
    learner = backend.make_learner(model, backend.make_optimizer(model, SGD(momentum=0.9)))
    x, y = learner.images(digits.images), learner.labels(digits.labels)
    config = dataclasses.replace(SQUEEZE["digits"], steps=2)
    losses = [float(learner.ops.to_numpy(train_step(learner, config, x, y, rng=step).loss)) for step in range(8)]
    if not losses[-1] < losses[0]:
        raise RuntimeError(f"the loss did not fall: {losses[0]:.3f} → {losses[-1]:.3f}")
    versions = ", ".join(f"{package} {version}" for package, version in backend.versions().items())
    seconds = time.perf_counter() - begun
    loss = f"loss {losses[0]:.2f} → {losses[-1]:.2f}"
    found = f"devices {', '.join(backend.devices())} (auto: {device})"
    return f"{versions}, {found}; self-test passed in {seconds:.1f} s, {loss}"
