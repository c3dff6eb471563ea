"""The optimizers of a run: torch's own."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from stcore.core import optimizers
from stcore.errors import UsageError
from stcore.models import trainable_weights


class SGD(torch.optim.SGD):
    """torch's SGD without what concerns torch.compile, whose import takes more than a second of each start."""

    add_param_group = inspect.unwrap(torch.optim.SGD.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.SGD.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.SGD.state_dict)
    zero_grad = inspect.unwrap(torch.optim.SGD.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class AdamW(torch.optim.AdamW):
    """torch's AdamW, without the same."""

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def make_optimizer(model: nn.Module, settings: optimizers.SGD | optimizers.AdamW) -> torch.optim.Optimizer:
    """The optimizer of all weights but those to freeze, which need no gradients any more.

    All tensors of one rate and decay are updated in one call.
    """
    weights = trainable_weights(model)
    groups: dict[optimizers.Update, list[nn.Parameter]] = {}
    for name, update in settings.updates({name: weight.shape for name, weight in weights.items()}).items():
        if update is None:
            weights[name].requires_grad_(False)
        else:
            groups.setdefault(update, []).append(weights[name])
    given = [
        {"params": members, "lr": settings.learning_rate * share, "share": share, "weight_decay": decay}
        for (share, decay), members in groups.items()
    ]
    if isinstance(settings, optimizers.AdamW):
        return AdamW(given, betas=settings.betas, eps=optimizers.ADAM_EPSILON, foreach=True)
    return SGD(given, lr=0.0, momentum=settings.momentum, nesterov=settings.nesterov, foreach=True)


def rate_of(optimizer: Any, model: nn.Module) -> float:
    """The learning rate of an optimizer that the user made. Raises UsageError if it cannot train this model.

    It is that of the first group, to which the others' keep their ratio.
    """
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(
            f"optimizer: expected a name or a torch.optim optimizer; received {type(optimizer).__qualname__}"
        )
    own = {id(weight) for weight in model.parameters()}
    if not all(id(weight) in own for group in optimizer.param_groups for weight in group["params"]):
        raise UsageError("optimizer: expected one of the model's weights; received weights that it does not have")
    rate = float(optimizer.param_groups[0]["lr"])
    for group in optimizer.param_groups:
        group.setdefault("share", float(group["lr"]) / rate if rate else 1.0)
    return rate
