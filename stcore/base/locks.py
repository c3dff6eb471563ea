"""A lock for each of other people's objects, for as long as it lives."""

from __future__ import annotations

import threading
import weakref
from typing import Any

_locks: weakref.WeakKeyDictionary[Any, threading.RLock] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def lock_of(model: Any) -> threading.RLock:
    """The lock of a model: threads that share it make its forwards, which switch its layers, one after another."""
    with _making:
        return _locks.setdefault(model, threading.RLock())
