"""Contract tests for plug-ins: what stcore's own methods, attacks and other parts pass, for an author's.

    import stcore.testing

    def test_the_method_keeps_the_contract():
        stcore.testing.check_method(MyConfig())

Each check runs on every installed backend and on a strict numpy backend that knows the protocol alone, in float64
on tiny networks, in seconds. A failure is an AssertionError that says what was expected and what was received. No
test framework is needed. Run them without `python -O`, which drops assertions.
"""

from stcore.testing.attacks import check_attack
from stcore.testing.divergences import check_divergence
from stcore.testing.methods import check_method
from stcore.testing.parts import check_dataset, check_tracker

__all__ = ["check_attack", "check_dataset", "check_divergence", "check_method", "check_tracker"]
