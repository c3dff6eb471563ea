"""The squared Hellinger distance."""

from stcore.protocols import Ops, Tensor


def hellinger(ops: Ops, log_p: Tensor, log_q: Tensor, stop_targets: bool = True) -> Tensor:
    """1 − Σ √(p·q), in [0, 1]. Both arguments are differentiated; there is no target to stop."""
    return 1.0 - ops.sum(ops.exp(0.5 * (log_p + log_q)))
