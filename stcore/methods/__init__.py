"""Training methods by name. Each has a file with its formula and settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from stcore.base import checks
from stcore.base.registry import Registry, call
from stcore.core.objective import Objective
from stcore.errors import UsageError
from stcore.methods.adversarial import AdversarialConfig
from stcore.methods.bridged import BatConfig
from stcore.methods.collaborative import CollaborativeConfig
from stcore.methods.extreme_norms import EatConfig
from stcore.methods.fast_squeeze import FastSqueezeConfig
from stcore.methods.gair_rst import GairRstConfig
from stcore.methods.gairat import GairatConfig
from stcore.methods.mart import MartConfig
from stcore.methods.single_step import SingleStepConfig
from stcore.methods.squeeze import SqueezeConfig
from stcore.methods.standard import StandardConfig
from stcore.methods.trades import TradesConfig


class Method(NamedTuple):
    """A method's settings class, a frozen dataclass, and the fields whose defaults this name changes.

    A plug-in names its class, or a `Method` where the class has several names.
    """

    config: type[Any]
    defaults: Mapping[str, Any] = MappingProxyType({})


_MEMBERS = ("noise_laws", "passes", "phase", "find", "losses")


def _accepted(part: Any, name: str) -> Method:
    method = part if isinstance(part, Method) else Method(part)
    config = method.config
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise UsageError(
            f"method: expected {name} to be a frozen dataclass, as stcore.SqueezeConfig is, or a "
            f"stcore.methods.Method of one; received {part!r:.100}"
        )
    required = [it.name for it in dataclasses.fields(config) if it.default is it.default_factory]
    if required or not config.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        raise UsageError(
            f"method: expected {name} to be frozen, with a default for each field; received "
            + (f"none for {', '.join(required)}" if required else "@dataclass without frozen=True")
        )
    if missing := [member for member in _MEMBERS if not hasattr(config, member)]:
        raise UsageError(f"method: expected {name} to have {', '.join(_MEMBERS)}; it lacks {', '.join(missing)}")
    return method


METHODS: Registry[Method] = Registry(
    "method",
    "stcore.methods",
    {
        "st": Method(SqueezeConfig),
        "standard": Method(StandardConfig),
        "at": Method(AdversarialConfig),
        "trades": Method(TradesConfig),
        "mart": Method(MartConfig),
        "collaborative": Method(CollaborativeConfig),
        "at2": Method(AdversarialConfig, {"examples": 2}),
        "trades2": Method(TradesConfig, {"examples": 2}),
        "mart2": Method(MartConfig, {"examples": 2}),
        "gairat": Method(GairatConfig),
        "gair-rst": Method(GairRstConfig),
        "bat": Method(BatConfig),
        "e-at": Method(EatConfig),
        "fast-st": Method(FastSqueezeConfig),
        "n-fgsm": Method(SingleStepConfig),
        "fgsm-rs": Method(SingleStepConfig, {"start_scale": 1.0, "step_scale": 1.25, "project": True}),
        "fgsm-consistency": Method(
            SingleStepConfig, {"start_scale": 1.0, "project": True, "consistency": 100.0, "label_smoothing": 0.6}
        ),
    },
    _accepted,
)


def described(objective: Any) -> tuple[str, dict[str, Any]]:
    """The name and the settings of a method that is handed over as an object; of a class, its name alone.

    Raises UsageError for what is no method.
    """
    config = objective if isinstance(objective, type) else type(objective)
    METHODS.find(config)
    names = (name for name, method in METHODS.items() if method.config is config)
    settings = [] if config is objective else dataclasses.fields(config)
    return next(names, None) or METHODS.name_of(config), {it.name: getattr(objective, it.name) for it in settings}


def fields(method: str) -> tuple[str, ...]:
    """Returns the names of a method's settings. Raises UsageError for an unknown method."""
    return tuple(field.name for field in dataclasses.fields(METHODS.find(method).config))


def check_fields(method: str, names: Iterable[str]) -> None:
    """Raises UsageError for an unknown method, or a name that is not one of its settings."""
    known = fields(method)
    for name in names:
        if name not in known:
            available = ", ".join(known) or "none"
            hint = checks.did_you_mean(name, known)
            raise UsageError(
                f"{name}: not a setting of the method {method}, whose settings are: {available}{hint}"
            )


def make_objective(method: str, settings: dict[str, Any]) -> Objective:
    """Returns a method with these settings. Raises UsageError for an unknown method or setting."""
    check_fields(method, settings)
    config, defaults = METHODS.find(method)
    objective: Objective = call("method", method, config, **{**defaults, **settings})
    return objective
