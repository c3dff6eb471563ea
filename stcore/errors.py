"""What can go wrong, each with the exit code that `stcli` documents for it.

Every message says what was expected, what came, and how to mend it.
"""

OK = 0
BUG = 1
INTERRUPTED = 130


class StcoreError(Exception):
    """An error the user can mend; `exit_code` is what `stcli` ends with."""

    exit_code = BUG


class UsageError(StcoreError, ValueError):
    """A setting, option, checkpoint or output folder that does not fit. Exit code 2."""

    exit_code = 2


class DataError(StcoreError, ValueError):
    """A data set that is missing, empty or not what it should be. Exit code 3."""

    exit_code = 3


class DeviceError(StcoreError, RuntimeError):
    """A device that is not there, or that ran out of memory. Exit code 4."""

    exit_code = 4


class DivergedError(StcoreError, ArithmeticError):
    """The loss stopped being a number. The last good checkpoint is kept. Exit code 5."""

    exit_code = 5


DIVIDE = "Divide 0–255 images by 255"

HALF = (
    "model: expected float32 or float64; received float16, in which the search's gradients underflow to zero. "
    "Convert the model to float32, or leave autocast"
)
