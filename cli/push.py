"""`stcli push`: uploads a network to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stcore import errors
from stcore.api.loading import is_hub_folder
from stcore.api.run import load
from stcore.cli.console import make_console, say
from stcore.cli.options import PushOptions
from stcore.cli.parsing import parse
from stcore.cli.quiet import quietly
from stcore.export import hub


def main(args: Sequence[str]) -> int:
    """Uploads, and prints the address; returns the exit code."""
    options = parse(PushOptions, args, "stcli push")
    hub.check_repository(options.repository)
    if is_hub_folder(Path(options.run)):
        address = hub.upload(Path(options.run), options.repository, private=options.private)
    else:
        with quietly():
            network = load(
                options.run, checkpoint=options.checkpoint, backend=options.backend, model=options.model
            )
        address = network.push(options.repository, private=options.private)
    say(make_console(), f"{options.run} → {address}; stcore.load({hub.PREFIX + options.repository!r}) loads it")
    return errors.OK
