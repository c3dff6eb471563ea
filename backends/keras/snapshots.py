"""Complete training state of a Keras model as host arrays, restored bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from stcore.base.snapshots import check_snapshot, part
from stcore.protocols import Array


def variable_state(kind: str, variables: Sequence[Any]) -> dict[str, Array]:
    """Values by kind and index: the same for every model built with the same settings. Paths may not be unique."""
    return {f"{kind}/{index}": ops.convert_to_numpy(variable) for index, variable in enumerate(variables)}


def restore_variables(kind: str, variables: Sequence[Any], snapshot: Mapping[str, Array]) -> None:
    """Restores variables. Raises UsageError, with nothing changed, if the snapshot does not fit."""
    arrays = part(snapshot, f"{kind}/")
    check_snapshot(arrays, {str(index): tuple(variable.shape) for index, variable in enumerate(variables)})
    for index, variable in enumerate(variables):
        variable.assign(arrays[str(index)])
