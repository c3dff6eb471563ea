"""What a step logs of its losses, and how an epoch tells it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stcore.methods import neighbours
from stcore.methods.metrics import means_alone, readable

LOSSES = arrays.arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 50))


@given(LOSSES, st.data())
def test_an_epoch_tells_means_deviations_and_the_mean_over_those_that_are_collaborative(natural, data):
    neighbour = data.draw(arrays.arrays(np.float64, natural.shape, elements=st.floats(0, 50)))
    logged = neighbours.metrics(Numpy, natural, [neighbour], natural)
    row = readable({name: float(value.mean()) for name, value in logged.items()})
    assert row["natural_loss"] == pytest.approx(natural.mean())
    assert row["natural_loss_deviation"] == pytest.approx(natural.std(), abs=1e-5)
    assert row["adversarial_loss_deviation"] == pytest.approx(neighbour.std(), abs=1e-5)
    lower = neighbour[neighbour < natural]
    assert row["collaborative_share"] == pytest.approx(len(lower) / len(natural))
    assert ("collaborative_loss" in row) == (len(lower) > 0)
    if len(lower):
        assert row["collaborative_loss"] == pytest.approx(lower.mean())
    assert not any(name.endswith(("_squared", "_part")) for name in row)


def test_what_is_read_as_it_is_leaves_out_what_is_only_added_up():
    metrics = {"natural_loss": 1, "natural_loss_squared": 1, "collaborative_loss_part": 1, "divergence": 0}
    assert list(means_alone(metrics)) == ["natural_loss", "divergence"]


class Numpy:
    """The operations that the metrics use."""

    ones_like = staticmethod(np.ones_like)
    where = staticmethod(np.where)
