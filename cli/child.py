"""`python -m stcore.cli.child WORDS`: `stcli WORDS`, which ends at once where the process that began it is gone.

Its standard input is a pipe that the parent holds open and writes nothing to. However the parent ends, killed too,
the system closes the pipe; without this an orphan would go on in a folder that the next command takes up.
"""

from __future__ import annotations

import os
import sys
import threading

from stcore.cli.main import main

ORPHANED = 137  # as a killed command's


def watch() -> None:
    """Waits for the end of the pipe."""
    while os.read(0, 1):
        pass
    os._exit(ORPHANED)


if __name__ == "__main__":
    threading.Thread(target=watch, daemon=True).start()
    sys.exit(main())
