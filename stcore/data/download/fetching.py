"""Published sets brought into the data folder over the network, from the first mirror that has them."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from stcore.base.progress import Progress
from stcore.data.download.http import described, download, receiving
from stcore.data.download.registry import File, published
from stcore.data.download.stored import data_folder, fetch_command, verify
from stcore.errors import DataError, UsageError

OFFLINE = "STCLI_OFFLINE"  # in the environment: no network call is made, unless it is 0 or empty
TIMEOUT = 30.0  # seconds


def fetch(
    name: str,
    *,
    folder: str | Path | None = None,
    mirror: str | None = None,
    timeout: float = TIMEOUT,
    offline: bool = False,
    progress: Progress | None = None,
    on_failure: Callable[[str], None] = lambda said: None,
) -> Path:
    """Bring a published set into the data folder, where `load(name)` finds it; returns its folder there.

    A file that is there with the right SHA-256 stays; nothing else than such a file is ever put in its place.

    folder: the data folder, as `data_folder` takes it.
    mirror: a URL that is tried first: of the file itself, or of what the published names stand under.
    timeout: seconds to wait for a connection, and for each next piece of the file.
    offline: make no network call, as with STCLI_OFFLINE=1 in the environment.
    progress: told of each file; on_failure: told, in a line, of each mirror that fails.
    DataError if a file cannot be had, with what came from where; UsageError for an unknown set, a mirror or a
    timeout that is none, and a folder that cannot be written.
    """
    if mirror is not None:
        _check(mirror)
    if not 0 < timeout < math.inf:
        raise UsageError(f"timeout: expected a number of seconds above 0; received {timeout:g}")
    forbidden = os.environ.get(OFFLINE, "") not in ("", "0")
    for stored in verify(name, folder):
        if stored.state == "here":
            continue
        if offline or forbidden:
            command = f"{OFFLINE}=0 " * forbidden + fetch_command(name, folder)
            raise DataError(
                f"{name}: expected {described(stored.file)} in {stored.path.parent}, received "
                f"{'none' if stored.state == 'missing' else 'another file'}, and offline no network call is made; "
                f"with a network, run {command}"
            )
        first = () if mirror is None else (_at(mirror, name, stored.file),)
        _first_of((*first, *stored.file.urls), stored.file, stored.path, timeout, progress, on_failure)
    return data_folder(folder) / name


def _check(mirror: str) -> None:
    try:
        parts = urlsplit(mirror)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of an address in brackets, or of a port
        known = False
    if not known:
        raise UsageError(f"mirror: expected a URL such as https://host/folder/, received {mirror!r}; correct it")


def _at(mirror: str, name: str, file: File) -> str:
    """The file's URL at a mirror, which is that, the URL of a sibling or that of their folder."""
    last = urlsplit(mirror).path.rpartition("/")[2]
    if last == file.name:
        return mirror
    siblings = {sibling.name for sibling in published(name).files}
    return urljoin(mirror if last in siblings else f"{mirror.rstrip('/')}/", file.name)


def _first_of(
    urls: tuple[str, ...],
    file: File,
    target: Path,
    timeout: float,
    progress: Progress | None,
    on_failure: Callable[[str], None],
) -> None:
    failures = []
    for url in urls:
        host = urlsplit(url).netloc
        try:
            with receiving(target, file, progress, f"from {host}") as received:
                download(url, received, timeout)
            return
        except DataError as error:
            failures.append(f"{error} from {host}")
            on_failure(f"{file.name}: {failures[-1]}")
    raise DataError(
        f"expected {described(file)}, received {'; '.join(failures)}. Try another place by --mirror URL, or "
        "download it by hand and run stcli data import FILE"
    )
