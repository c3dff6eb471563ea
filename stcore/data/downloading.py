"""One file over HTTP, and what went wrong in a few words."""

from stcore.data.receiving import Received
from stcore.errors import DataError

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
