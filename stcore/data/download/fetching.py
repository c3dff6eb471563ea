"""Download of published data sets into the data folder, from the first mirror that has them."""

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

OFFLINE = "STCLI_OFFLINE"  # environment variable that forbids network calls, unless it is 0 or empty
TIMEOUT = 30.0  # seconds


def fetch(
    name: str,
    *,
    folder: str | Path | None = None,
    mirror: str | None = None,
    timeout: float = TIMEOUT,
    offline: bool = False,
    progress: Progress | None = None,
    on_failure: Callable[[str], None] = lambda message: None,
) -> Path:
    """Downloads a published set into the data folder, where `load(name)` finds it, and returns the set's folder.

    A file that is present with the right SHA-256 is kept; only a download with that SHA-256 replaces any other.

    name: cifar10, cifar100 or svhn.   folder: the data folder, as in `data_folder`.
    mirror: a URL to try first: of the file itself, or of a folder that holds the published names.
    timeout: seconds to wait for a connection, and for each chunk of the file.
    offline: make no network call, as with STCLI_OFFLINE=1 in the environment.
    progress: reports the megabytes of each file.   on_failure: called with one line for each mirror that fails.
    Raises DataError, with what each mirror sent, if a file cannot be downloaded; UsageError for an unknown set, an
    invalid mirror or timeout, or a folder that cannot be written.
    """
    if mirror is not None:
        _check_url(mirror)
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
        first = () if mirror is None else (_mirror_url(mirror, name, stored.file),)
        urls = (*first, *stored.file.urls)
        _download_from_any(urls, stored.file, stored.path, timeout, progress, on_failure)
    return data_folder(folder) / name


def _check_url(mirror: str) -> None:
    try:
        parts = urlsplit(mirror)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # from an address in brackets, or a port
        valid = False
    if not valid:
        raise UsageError(f"mirror: expected a URL such as https://host/folder/, received {mirror!r}; correct it")


def _mirror_url(mirror: str, name: str, file: File) -> str:
    """The file's URL at a mirror: `mirror` is that URL, or one of another file of the set, or of their folder."""
    last = urlsplit(mirror).path.rpartition("/")[2]
    if last == file.name:
        return mirror
    siblings = {sibling.name for sibling in published(name).files}
    return urljoin(mirror if last in siblings else f"{mirror.rstrip('/')}/", file.name)


def _download_from_any(
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
        f"expected {described(file)}, received {'; '.join(failures)}. Try another mirror by --mirror URL, or "
        "download it by hand and run stcli data import FILE"
    )
