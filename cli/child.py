"""`python -P -m stcore.cli.child WORDS`: runs `stcli WORDS`, and ends at once if its parent process ends.

Its standard input is a pipe that the parent holds open and never writes to. However the parent ends, even killed,
the system closes the pipe. Without this an orphan would keep writing to a folder that the next command resumes.
"""

from __future__ import annotations

import os
import sys
import threading

from stcore.cli.main import main

ORPHANED = 137  # the exit code of a killed command


def watch() -> None:
    """Waits for the end of the pipe."""
    while os.read(0, 1):
        pass
    os._exit(ORPHANED)


if __name__ == "__main__":
    threading.Thread(target=watch, daemon=True).start()
    sys.exit(main())
