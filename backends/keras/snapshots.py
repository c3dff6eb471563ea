"""All that a Keras model's next step depends on, as host arrays and back, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops

from stcore.base.snapshots import check_snapshot, part
from stcore.protocols import Array


def of_variables(kind: str, variables: Sequence[Any]) -> dict[str, Array]:
    """By kind and place, which a model made alike has in common; paths need not be unique."""
    return {f"{kind}/{place}": ops.convert_to_numpy(variable) for place, variable in enumerate(variables)}


def into_variables(kind: str, variables: Sequence[Any], snapshot: Mapping[str, Array]) -> None:
    """UsageError, and nothing changed, unless it fits."""
    theirs = part(snapshot, f"{kind}/")
    check_snapshot(theirs, {str(place): tuple(variable.shape) for place, variable in enumerate(variables)})
    for place, variable in enumerate(variables):
        variable.assign(theirs[str(place)])
