"""One file over HTTP, and what went wrong in a few words."""

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from stcore.base.files import replacing, writing
from stcore.base.progress import Progress, Silent, stretch
from stcore.data.download.registry import File
from stcore.errors import DataError

MB = 1_000_000  # bytes; progress is told in these
ABANDONED = 3600.0  # seconds since anything was written to it


class Received:
    """What is written to one file, counted and hashed; DataError as soon as it cannot be the one expected."""

    def __init__(self, to: BinaryIO, expected: File, progress: Progress, note: str) -> None:
        self.size = 0
        self._to, self._expected, self._progress, self._note = to, expected, progress, note
        self._digest, self._start = hashlib.sha256(), b""

    def write(self, chunk: bytes) -> None:
        self._start = self._start or bytes(chunk[:64])
        before, self.size = self.size, self.size + len(chunk)
        self._digest.update(chunk)
        if self.size > self._expected.size:  # a server may go on for ever
            raise DataError(self._what(f"more than {self._expected.size} bytes"))
        self._to.write(chunk)
        self._progress.advance(self.size // MB - before // MB, self._note)

    def flush(self) -> None:
        """What the downloader asks for after each chunk; the file is synced once, at its end."""

    def check(self) -> None:
        """DataError, which says what came, if it is not the whole file."""
        if self.size != self._expected.size:
            raise DataError(self._what(f"{self.size} bytes"))
        if (sha256 := self._digest.hexdigest()) != self._expected.sha256:
            raise DataError(self._what(f"as many bytes with sha256 {sha256}"))

    def _what(self, amount: str) -> str:
        page = self._start.lstrip().lower().startswith((b"<!doctype html", b"<html"))
        return f"an HTML page of {amount}" if page else amount


@contextlib.contextmanager
def receiving(
    target: Path, expected: File, progress: Progress | None = None, note: str = ""
) -> Iterator[Received]:
    """Takes the place of `target` once it is whole and has the expected hash; else what was there stays.

    progress, note: who is told how many megabytes were written, and with which note.
    DataError if something else came; UsageError where it cannot be written.
    """
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*.part"):  # of a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED:
                left.unlink()
    progress = progress or Silent()
    with (
        stretch(progress, expected.name, max(1, expected.size // MB), "MB"),
        replacing(target) as file,
    ):
        received = Received(file, expected, progress, note)
        yield received
        received.check()


def described(file: File) -> str:
    """A file as an error says that it was expected."""
    return f"{file.name} of {file.size} bytes with sha256 {file.sha256}"


CHUNK = 1 << 16  # bytes

# Some hosts turn away clients without a name; "identity", or a server may unpack the archive on its way.
HEADERS = {"User-Agent": "stcore", "Accept-Encoding": "identity"}


def download(url: str, received: Received, timeout: float) -> None:
    """Write what a URL answers with; DataError if an answer fails to come whole.

    timeout: seconds to wait for a connection, and for each next piece.
    """
    from pooch import HTTPDownloader
    from requests.exceptions import ChunkedEncodingError, HTTPError, RequestException

    get = HTTPDownloader(chunk_size=CHUNK, timeout=(timeout, timeout), headers=HEADERS)
    try:
        get(url, received, None)
    except DataError:  # what came is not the file
        raise
    except HTTPError as error:
        raise DataError(str(error).partition(" for url:")[0]) from error
    except ChunkedEncodingError as error:
        raise DataError(f"{received.size} bytes and then no more") from error
    except RequestException as error:
        if "timed out" in str(error):  # a wait for an answer, or for what follows, by several classes
            raise DataError(f"nothing for {timeout:g} s after {received.size} bytes") from error
        raise DataError(_innermost(error).rpartition(": ")[2].removesuffix(".")) from error
    except ValueError as error:  # of a header
        raise DataError(f"a malformed answer ({error})") from error


def _innermost(error: object) -> str:
    """What the system said; each layer above it holds the one below as its reason, or last in its arguments."""
    while isinstance(error, Exception):
        inner = getattr(error, "reason", error.args[-1] if error.args else "")
        if not isinstance(inner, Exception):
            break
        error = inner
    return str(error)
