"""HTTP download of one file, verified while it is written, with short reasons for failures."""

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

MB = 1_000_000  # bytes; the unit of progress
CHUNK = 1 << 16  # bytes
STALE = 3600.0  # seconds since the last write, after which a partial file belongs to a killed process

# Some hosts reject clients without a name; "identity" keeps a server from unpacking the archive on the way.
HEADERS = {"User-Agent": "stcore", "Accept-Encoding": "identity"}


def download(url: str, received: "Received", timeout: float) -> None:
    """Writes the content of a URL to `received`.

    timeout: seconds to wait for a connection, and for each chunk.
    Raises DataError, with a short reason, if the answer is not complete.
    """
    from pooch import HTTPDownloader
    from requests.exceptions import ChunkedEncodingError, HTTPError, RequestException

    get = HTTPDownloader(chunk_size=CHUNK, timeout=(timeout, timeout), headers=HEADERS)
    try:
        get(url, received, None)
    except DataError:  # the content is not the file
        raise
    except HTTPError as error:
        raise DataError(str(error).partition(" for url:")[0]) from error
    except ChunkedEncodingError as error:
        raise DataError(f"{received.size} bytes and then no more") from error
    except RequestException as error:
        if "timed out" in str(error):  # of the connection or of a chunk: several classes
            raise DataError(f"nothing for {timeout:g} s after {received.size} bytes") from error
        raise DataError(_innermost(error).rpartition(": ")[2].removesuffix(".")) from error
    except ValueError as error:  # from a header
        raise DataError(f"a malformed answer ({error})") from error


@contextlib.contextmanager
def receiving(
    target: Path, expected: File, progress: Progress | None = None, note: str = ""
) -> Iterator["Received"]:
    """Yields a `Received` that replaces `target` once it is complete and has the expected hash.

    progress: reports the megabytes written, with `note`.
    Raises DataError if the content is another; `target` is then unchanged. Raises UsageError if it cannot be
    written.
    """
    with writing(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    for partial in target.parent.glob(f".{target.name}.*.part"):  # of a killed process
        with contextlib.suppress(OSError):
            if time.time() - partial.stat().st_mtime > STALE:
                partial.unlink()
    progress = progress or Silent()
    with (
        stretch(progress, expected.name, max(1, expected.size // MB), "MB"),
        replacing(target) as file,
    ):
        received = Received(file, expected, progress, note)
        yield received
        received.check()


class Received:
    """A file being written, counted and hashed. Raises DataError as soon as it cannot be the expected one."""

    def __init__(self, to: BinaryIO, expected: File, progress: Progress, note: str) -> None:
        self.size = 0
        self._to, self._expected, self._progress, self._note = to, expected, progress, note
        self._digest, self._start = hashlib.sha256(), b""

    def write(self, chunk: bytes) -> None:
        self._start = self._start or bytes(chunk[:64])
        before, self.size = self.size, self.size + len(chunk)
        self._digest.update(chunk)
        if self.size > self._expected.size:  # a server may send data for ever
            raise DataError(self._describe(f"more than {self._expected.size} bytes"))
        self._to.write(chunk)
        self._progress.advance(self.size // MB - before // MB, self._note)

    def flush(self) -> None:
        """Does nothing: the downloader flushes after each chunk, but the file is synced once at its end."""

    def check(self) -> None:
        """Raises DataError, with what was received, unless the file is complete and has the expected hash."""
        if self.size != self._expected.size:
            raise DataError(self._describe(f"{self.size} bytes"))
        if (sha256 := self._digest.hexdigest()) != self._expected.sha256:
            raise DataError(self._describe(f"as many bytes with sha256 {sha256}"))

    def _describe(self, amount: str) -> str:
        page = self._start.lstrip().lower().startswith((b"<!doctype html", b"<html"))
        return f"an HTML page of {amount}" if page else amount


def described(file: File) -> str:
    """A file in an error message: name, size and hash."""
    return f"{file.name} of {file.size} bytes with sha256 {file.sha256}"


def _innermost(error: object) -> str:
    """The system's message: each layer holds the one below as its reason or as its last argument."""
    while isinstance(error, Exception):
        inner = getattr(error, "reason", error.args[-1] if error.args else "")
        if not isinstance(inner, Exception):
            break
        error = inner
    return str(error)
