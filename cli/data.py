"""`stcli data`: fetches, verifies and describes data sets, and lists those that are kept decoded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.table import Table

from stcore import errors
from stcore.base import checks
from stcore.cli.console import make_console, make_progress, say
from stcore.cli.options import (
    DataCacheOptions,
    DataConvertOptions,
    DataFetchOptions,
    DataImportOptions,
    DataInfoOptions,
    DataListOptions,
    DataVerifyOptions,
)
from stcore.cli.parsing import act, parse
from stcore.data import ImageData, Splits, StreamData, cache, fetch, import_file, load, save_npy, verify
from stcore.data.download.registry import PUBLISHED
from stcore.data.download.stored import Stored, data_folder, fetch_command, file_states
from stcore.data.readers.shards import PARTS
from stcore.errors import DataError, UsageError

HELP = """usage: stcli data ACTION [options]

  list                  list the published data sets, and which of them are stored here
  fetch NAME            download one: cifar10, cifar100 or svhn
  verify NAME           compare the stored files with the published SHA-256
  import FILE           add a published file that was downloaded by hand
  info SPEC             describe any data set: cifar10, parquet:DIR, npz:DIR, …
  convert SPEC npy:DIR  write one as files that training memory-maps
  cache                 list the decoded images that are kept between runs, or remove them

  stcli data ACTION --help lists an action's options
"""


def main(args: Sequence[str]) -> int:
    """Runs the action that the first word names; returns the exit code."""
    actions = {
        "list": list_,
        "fetch": fetch_,
        "verify": verify_,
        "import": import_,
        "info": info,
        "convert": convert,
        "cache": cache_,
    }
    return act(actions, HELP, args)


def list_(args: Sequence[str]) -> int:
    """Lists the published sets."""
    options = parse(DataListOptions, args, "stcli data list")
    found = {name: file_states(name, options.data_dir) for name in PUBLISHED}
    if options.json:
        print(json.dumps({name: [as_json(one) for one in stored] for name, stored in found.items()}, indent=2))
        return errors.OK
    table = Table()
    for title in ("data set", "what it is", "MB", "state"):
        table.add_column(title, justify="right" if title == "MB" else "left")
    for name, stored in found.items():
        size = sum(one.file.size for one in stored) / 1e6
        table.add_row(name, PUBLISHED[name].about, f"{size:.0f}", state(stored))
    console = make_console()
    console.print(table)
    say(console, f"the data folder is {data_folder(options.data_dir)}")
    return errors.OK


def fetch_(args: Sequence[str]) -> int:
    """Fetches a published set over the network."""
    options = parse(DataFetchOptions, args, "stcli data fetch")
    console = make_console(stderr=options.json)  # stdout holds only the JSON
    place = fetch(
        options.name,
        folder=options.data_dir,
        mirror=options.mirror,
        timeout=options.timeout,
        offline=options.offline,
        progress=make_progress(console),
        on_failure=lambda said: say(console, said),
    )
    stored = file_states(options.name, options.data_dir)
    if options.json:
        print(json.dumps([as_json(one) for one in stored], indent=2))
        return errors.OK
    say(console, f"{options.name} is complete, in {place}")
    spec = options.name if options.data_dir is None else f"{options.name}:{place}"
    say(console, f"  stcli train --dataset {spec}")
    return errors.OK


def verify_(args: Sequence[str]) -> int:
    """Prints the state of each file. Raises DataError if any differs from the published one."""
    options = parse(DataVerifyOptions, args, "stcli data verify")
    stored = verify(options.name, options.data_dir)
    if options.json:
        print(json.dumps([as_json(one) for one in stored], indent=2))
    else:
        console = make_console()
        for one in stored:
            say(console, f"{one.path}: {one.state}")
    wrong = [one for one in stored if one.state != "here"]
    if wrong:
        said = ", ".join(f"{one.file.name} is {one.state}" for one in wrong)
        raise DataError(
            f"{options.name}: expected all files as published, received: {said}; "
            f"run {fetch_command(options.name, options.data_dir)}"
        )
    return errors.OK


def import_(args: Sequence[str]) -> int:
    """Imports a file that was downloaded by hand."""
    options = parse(DataImportOptions, args, "stcli data import")
    name, path = import_file(options.file, options.data_dir)
    stored = file_states(name, options.data_dir)
    if options.json:
        print(json.dumps([as_json(one) for one in stored], indent=2))
        return errors.OK
    console = make_console()
    say(console, f"{options.file} → {path}")
    say(console, f"{name}: {state(stored)}")
    return errors.OK


def info(args: Sequence[str]) -> int:
    """Describes a data set."""
    options = parse(DataInfoOptions, args, "stcli data info")
    splits = loaded(options)
    parts = {name: part for name in PARTS if (part := getattr(splits, name)) is not None}
    if options.json:
        print(json.dumps({name: described(part) for name, part in parts.items()}, indent=2))
        return errors.OK
    console = make_console()
    for name, part in parts.items():
        shape = "x".join(map(str, part.image_shape))
        say(console, f"{name}: {len(part)} images of {shape}, fingerprint {part.fingerprint()}")
    console.print(class_table(parts))
    return errors.OK


def convert(args: Sequence[str]) -> int:
    """Writes a data set as memory-mapped files."""
    options = parse(DataConvertOptions, args, "stcli data convert")
    kind, _, folder = options.to.partition(":")
    if kind != "npy" or not folder:
        raise UsageError(f"to: expected npy:DIR; received {options.to!r}")
    splits = loaded(options)
    save_npy(folder, splits)
    say(make_console(), f"{options.dataset} → {folder}\n  stcli train --dataset {options.to}")
    return errors.OK


def cache_(args: Sequence[str]) -> int:
    """Lists the cache of decoded images, or removes entries."""
    options = parse(DataCacheOptions, args, "stcli data cache")
    console = make_console(stderr=options.json)
    folder = cache.cache_folder()
    if folder is None:
        say(console, f"the cache of decoded images is off, by {cache.FOLDER} of the environment")
        if options.json:
            print(json.dumps({"folder": None, "entries": []}, indent=2))
        return errors.OK
    if options.clear is not None:
        chosen = chosen_entries(cache.entries(folder), options.clear)
        for entry in chosen:
            cache.remove(folder, entry.name)
        say(console, removed(chosen))
    if options.limit is not None:
        checks.number("limit", options.limit)
        say(console, removed(cache.limit_to(folder, options.limit * 2**30)))
    found = cache.entries(folder)
    if options.json:
        print(json.dumps({"folder": str(folder), "entries": [entry._asdict() for entry in found]}, indent=2))
        return errors.OK
    if found:
        console.print(cache_table(found))
    total = f"{sum(entry.bytes for entry in found) / 1e6:.0f} MB" if found else "empty"
    say(console, f"the cache of decoded images is {folder}: {total}")
    return errors.OK


def chosen_entries(found: Sequence[cache.Entry], name: str) -> list[cache.Entry]:
    """Those that --clear names. Raises UsageError unless it is all, or the beginning of one name."""
    chosen = [entry for entry in found if name in ("all", entry.name) or entry.name.startswith(name)]
    if name != "all" and len(chosen) != 1:
        raise UsageError(
            f"clear: expected all, or the beginning of one name that stcli data cache lists; received {name!r}, "
            f"which begins {len(chosen)} of them"
        )
    return chosen


def removed(entries: Sequence[cache.Entry]) -> str:
    """How many entries were removed, in words."""
    size = sum(entry.bytes for entry in entries) / 1e6
    return f"removed {len(entries)} {'entry' if len(entries) == 1 else 'entries'}, {size:.0f} MB"


def cache_table(found: Sequence[cache.Entry]) -> Table:
    """Entries of the cache of decoded images."""
    table = Table()
    for title in ("name", "source", "images", "shape", "MB", "last used"):
        table.add_column(title, justify="right" if title in ("images", "MB") else "left")
    for entry in found:
        used = datetime.fromtimestamp(entry.used).isoformat(" ", "minutes")
        shape = "x".join(map(str, entry.shape))
        table.add_row(entry.name[:12], entry.source, str(entry.images), shape, f"{entry.bytes / 1e6:.1f}", used)
    return table


def loaded(options: DataInfoOptions | DataConvertOptions) -> Splits:
    """The data set that the options name."""
    given = options.image_column, options.label_column
    if given.count(None) == 1:
        raise UsageError(f"image_column, label_column: expected both or neither; received {given}")
    columns = None if options.image_column is None else (options.image_column, str(options.label_column))
    return load(options.dataset, columns=columns, image_size=options.image_size, skip_broken=options.skip_broken)


def class_table(parts: dict[str, ImageData | StreamData]) -> Table:
    """Images per class in each split."""
    table = Table()
    for title in ("class", "name", *parts):
        table.add_column(title, justify="left" if title == "name" else "right")
    train = parts["train"]
    counts = [part.class_counts() for part in parts.values()]
    for label in range(train.num_classes):
        name = train.class_names[label] if train.class_names else ""
        table.add_row(str(label), name, *(str(count[label]) for count in counts))
    return table


def described(part: ImageData | StreamData) -> dict[str, Any]:
    """One split, for JSON."""
    return {
        "name": part.name,
        "images": len(part),
        "image_shape": part.image_shape,
        "num_classes": part.num_classes,
        "class_names": part.class_names,
        "class_counts": part.class_counts().tolist(),
        "fingerprint": part.fingerprint(),
    }


def as_json(stored: Stored) -> dict[str, Any]:
    """One published file, for JSON."""
    return {**stored.file._asdict(), "path": str(stored.path), "state": stored.state}


def state(stored: Sequence[Stored]) -> str:
    """The state of a set's files, in words."""
    apart = [f"{one.file.name} is {one.state}" for one in stored if one.state != "here"]
    if not apart:
        return "here"
    return "missing" if all(one.state == "missing" for one in stored) else "; ".join(apart)
