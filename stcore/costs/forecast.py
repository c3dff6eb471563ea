"""The forecast of a run from its probe: passes, operations, memory, hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stcore.autoattack.versions import Stage
from stcore.costs.measured import Measured, Phase
from stcore.costs.stopwatch import Spent
from stcore.data.batches import count_batches
from stcore.evaluation.attack_names import Split, attacks_by_name, split
from stcore.runs.plan import Plan


@dataclass(frozen=True)
class Forecast:
    """save_every: seconds between two savings of the state within an epoch."""

    plan: Plan
    measured: Measured
    save_every: float = 300.0

    @property
    def steps(self) -> int:
        """Per epoch."""
        return count_batches(self.measured.images.epoch, self.plan.optimisation.batch_size)

    def units(self, phase: Phase) -> int:
        """The largest cost of a step of this phase, in forwards of the batch."""
        return self.plan.units if phase.perturbed else self.plan.objective.passes.units

    def training(self, phase: Phase) -> Spent:
        """The cost of an epoch's steps."""
        return self.measured.images.epoch * phase.pace.image

    def choosing(self) -> Spent:
        """The cost of the evaluation after an epoch."""
        return _sum([self.measured.images.selection * pace.image for pace in self.measured.choosing])

    def parts(self) -> dict[str, Spent]:
        """The cost of the run's parts, by name, assuming that the best epoch is not the last."""
        measured, epochs = self.measured, self.plan.optimisation.epochs
        checkpoints = 2 * len(measured.choosing)
        paces = [*(phase.pace for phase in measured.phases), *measured.choosing, measured.final]
        kept = sum(phase.epochs * self._savings(phase) for phase in measured.phases)
        found = {
            "start_up": measured.start_up,
            "warm_up": _sum([pace.once for pace in paces]),
            "training": _sum([phase.epochs * self.training(phase) for phase in measured.phases]),
            "choosing": epochs * self.choosing(),
            "saving": kept * measured.saving,
            "final": checkpoints * measured.images.test * measured.final.image,
        }
        if measured.one_pass is not None:
            attacks = self._attacks()
            passes = {
                "autoattack": sum(map(self._passes, self._stages(attacks))),
                "corruptions": sum(len(it.cells) for it in attacks.corruptions.values()),
            }
            a_pass = checkpoints * measured.images.test * measured.one_pass.image
            found |= {name: count * a_pass for name, count in passes.items() if count}
        return found

    @property
    def total(self) -> Spent:
        return _sum(list(self.parts().values()))

    @property
    def flops(self) -> int | None:
        """The floating-point operations of all training steps; None if those of a forward are unknown."""
        forward = self.measured.network.forward_flops
        if forward is None:
            return None
        units = sum(phase.epochs * self.units(phase) for phase in self.measured.phases)
        return units * forward * self.measured.images.epoch

    def notes(self) -> list[str]:
        """The limits of the forecast, in sentences."""
        said = []
        slow = [
            phase.first for phase in self.measured.phases if phase.pace.images == self.plan.optimisation.batch_size
        ]
        if slow:
            epochs = " and ".join(map(str, slow))
            said.append(f"the pace from epoch {epochs} on is that of a single step; a longer probe measures more")
        if self.plan.runtime.gradient_checkpointing:
            said.append(
                "passes and FLOPs are without the forwards that are computed again; the times are with them"
            )
        if self.measured.one_pass is not None:
            said.append("autoattack: an upper estimate, from its passes if no image fell before its end")
        return said

    def as_json(self) -> dict[str, Any]:
        """The whole forecast in JSON's types; times in seconds, sizes in bytes."""
        passes, network, images = self.plan.objective.passes, self.measured.network, self.measured.images
        phases = [
            {
                "first_epoch": phase.first,
                "epochs": phase.epochs,
                "units_per_step": self.units(phase),
                "step": asdict(self.plan.optimisation.batch_size * phase.pace.image),
                "epoch": asdict(self.training(phase) + self.choosing()),
                "measured_images": phase.pace.images,
            }
            for phase in self.measured.phases
        ]
        return {
            "images": {
                **asdict(images),
                "steps_per_epoch": self.steps,
                "steps": self.steps * self.plan.optimisation.epochs,
            },
            "passes": {**passes._asdict(), "units": self.plan.units},
            "network": {**asdict(network), "training_flops": self.flops},
            "phases": phases,
            "parts": {name: asdict(spent) for name, spent in self.parts().items()},
            "total": asdict(self.total),
            "hours": self.total.seconds / 3600,
            "cpu_hours": self.total.cpu_seconds / 3600,
            "notes": self.notes(),
        }

    def _savings(self, phase: Phase) -> int:
        """The number of times the state is saved in an epoch."""
        seconds = self.training(phase).seconds
        return 1 + (int(seconds / self.save_every) if self.save_every else self.steps)

    def _attacks(self) -> Split:
        evaluation = self.plan.evaluation
        return split(attacks_by_name(evaluation.attacks, evaluation.epsilon, self.plan.norm))

    def _stages(self, attacks: Split) -> list[Stage]:
        classes = self.measured.images.classes
        return [stage for it in attacks.cascades.values() for stage in it.stages(classes)]

    @staticmethod
    def _passes(stage: Stage) -> int:
        """The passes for an image that withstands the stage: forwards and, if it uses gradients, backwards."""
        attack = stage.attack
        each = getattr(attack, "forwards", 1) + getattr(attack, "backwards", 0)
        verified = attack.evaluations if stage.nearest else 1
        return stage.restarts * max(1, stage.targets) * (attack.evaluations * each + verified * stage.samples)


def _sum(spent: Sequence[Spent]) -> Spent:
    return sum(spent, Spent())
