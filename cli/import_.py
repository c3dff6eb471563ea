"""`stcli import`: converts a published checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

from stcore import errors, models
from stcore.base.files import file_checksum
from stcore.base.version import __version__
from stcore.base.weights_file import save_weights
from stcore.cli.console import make_console
from stcore.cli.options import ImportOptions
from stcore.cli.parsing import parse
from stcore.cli.quiet import load_quietly
from stcore.errors import UsageError
from stcore.models import released, torch_files
from stcore.runs.store import FORMAT

PREACT = (
    "Two PreActResNets have the same tensor names. This is the one of AWP and RWP, whose shortcut takes the "
    "activated input; the shortcut of RobustBench's PreActBlock takes the raw input."
)


def main(args: Sequence[str]) -> int:
    """Imports as the arguments say; returns the exit code."""
    options = parse(ImportOptions, args, "stcli import")
    if options.out.suffix != ".safetensors" or not options.out.parent.is_dir() or options.out.exists():
        raise UsageError(f"out: expected a new .safetensors file in an existing folder; received {options.out}")
    if options.image_size < 1:
        raise UsageError(f"image_size: expected a side of at least 1 pixel; received {options.image_size}")
    load_quietly("torch")
    found = released.recognise(torch_files.read(options.file, options.key), options.model)
    about = {
        "format": FORMAT,
        "stcore": __version__,
        "model": found.model,
        "num_classes": found.num_classes,
        "image_shape": f"{options.image_size}x{options.image_size}x{found.in_channels}",
        "normalize": found.normalize,
        "source": options.file.name,
        "source_sha256": file_checksum(options.file),
    }
    save_weights(options.out, found.weights, about)

    console = make_console()
    what = f"{found.model}, {found.num_classes} classes, {len(found.weights)} tensors"
    console.print(f"{what} → {options.out}", soft_wrap=True)
    if found.normalize != models.normalization.NONE:
        console.print(
            f"it normalises pixels: give --normalize {found.normalize} to train it further", soft_wrap=True
        )
    if found.unused:
        console.print(f"left out: {len(found.unused)} tensors of sub_block1, which the network does not use")
    if found.model.startswith("preact-"):
        console.print(PREACT, soft_wrap=True)
    console.print("Evaluate it first: its natural accuracy must match the published one")
    return errors.OK
