"""Errors that a user can fix, each with the exit code of `stcli`.

Every message says what was expected, what was received, and how to fix it.
"""

OK = 0
BUG = 1
INTERRUPTED = 130


class StcoreError(Exception):
    """Base class of all errors that a user can fix; `exit_code` is the exit code of `stcli`."""

    exit_code = BUG


class UsageError(StcoreError, ValueError):
    """Invalid setting, option, model, checkpoint or output folder. Exit code 2."""

    exit_code = 2


class DataError(StcoreError, ValueError):
    """Data that is missing, empty, damaged or out of range. Exit code 3."""

    exit_code = 3


class DeviceError(StcoreError, RuntimeError):
    """A device that is missing or out of memory. Exit code 4."""

    exit_code = 4


class DivergedError(StcoreError, ArithmeticError):
    """A non-finite loss or non-finite logits. The last good checkpoint is kept. Exit code 5."""

    exit_code = 5


class UnconfirmedError(StcoreError, AssertionError):
    """Evidence whose successes, or whose order, are not all confirmed by its replay. Exit code 6."""

    exit_code = 6


class BrokenImageWarning(UserWarning):
    """Images of a data set that could not be read, and were left out as asked."""


class CacheWarning(UserWarning):
    """The cache of decoded images cannot be written, or was damaged; the run continues without it."""


class AuditWarning(UserWarning):
    """A reason not to believe an accuracy that `stcore.evaluate` returns."""


# Hints that several messages share.
DIVIDE = "Divide 0–255 images by 255"

HALF = (
    "model: expected float32 or float64; received float16, in which the search's gradients underflow to zero. "
    "Convert the model to float32, or leave autocast"
)
