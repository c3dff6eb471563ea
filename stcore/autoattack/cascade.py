"""The cascade: each attack runs on the images that withstood those before it, always from the image itself.

A *job* is one run: an image, a restart, a target class. As many jobs as fit in a batch are under way at once, as
lanes; a lane whose image has been fooled, or whose steps are over, makes room for the next job. Every success is
verified by a fresh forward, in the ball, in range and finite, before it counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stcore.attacks import counter_random
from stcore.attacks.stepped import HostAttack, SteppedAttack
from stcore.autoattack.lanes import Body, Lanes, lanes_on
from stcore.autoattack.records import NONE, Records
from stcore.autoattack.versions import IDS, Stage
from stcore.base import checks
from stcore.core import validation
from stcore.core.threat import lengths
from stcore.data.rows import Images
from stcore.protocols import Array, Classifier

_JOB = ("image", "restart", "rank")  # the columns of a job: a row of the images, and two numbers
_LANE = ("job", "step")
_SLACK = {"linf": 1e-6, "l2": 1e-6, "l1": 1e-5}
"""What float32 may lie outside the ball, relative to ε; in l1 every pixel's rounding adds up."""


class Cascade:
    """Stages on a data set, step by step: `while cascade.advance(): …`; between steps it can be saved.

    images: host images (N, H, W, C) or flat, uint8 or floats.   logits: (N, C) of the images themselves.
    predict: the class (B,) of native images, by a forward of its own.
    positions: (N,) what the noise of an image is addressed by; its place in the whole data set.
    batch_size: lanes at one time.   lanes: how an attack's lanes are kept, if they are known already.
    """

    def __init__(
        self,
        classifier: Classifier,
        stages: Sequence[Stage],
        images: Images,
        labels: Array,
        logits: Array,
        predict: Callable[[Array], Array],
        *,
        positions: Array | None = None,
        seed: int = 0,
        batch_size: int = 250,
        lanes: Callable[[SteppedAttack | HostAttack], Lanes] | None = None,
    ) -> None:
        checks.whole("batch_size", batch_size, 1)
        checks.whole("seed", seed)
        self.classifier, self.stages, self.batch_size = classifier, tuple(stages), batch_size
        self.records = Records.untouched(labels, logits.argmax(axis=1))
        self.forwards, self.backwards = np.zeros(len(self.stages), int), np.zeros(len(self.stages), int)
        self.seconds = np.zeros(len(self.stages))
        self.found: dict[int, Array] = {}
        """Adversarial examples by row, since whoever reads them last emptied it."""
        self._images, self._predict, self._seed = images, predict, seed
        self._positions = np.arange(len(images)) if positions is None else positions
        self._targets = _by_rank(logits, labels)
        self._lanes_of = lanes or lanes_on(classifier)
        self._stage, self._next = 0, 0
        self._body: Body = {}
        self._lanes: Array = np.zeros((0, len(_LANE)), int)
        self._jobs: Array = np.zeros((0, len(_JOB)), int)
        validation.check_precision(classifier, images.shape[1:])
        self._enter(0)

    # Where it stands

    @property
    def stage(self) -> int:
        """The place of the stage under way; the number of stages when all is done."""
        return self._stage

    @property
    def waiting(self) -> int:
        """Steps that the stage under way still has before it, if it finds nothing more."""
        stage = self.stages[self._stage]
        robust = self.records.robust
        rest = int(robust[self._jobs[self._next :, 0]].sum()) * stage.attack.evaluations
        return rest + int((stage.attack.evaluations - self._lanes[:, 1]).sum())

    # What it does

    def advance(self) -> bool:
        """One step of all lanes, or the change to the next stage; False when all stages are done."""
        if self._stage == len(self.stages):
            return False
        begun = time.monotonic()
        self._fill()
        if len(self._lanes):
            self._step()
            self.seconds[self._stage] += time.monotonic() - begun
        else:
            self._enter(self._stage + 1)
        return True

    def _step(self) -> None:
        lanes, stage = self._of(self._stage), self._stage
        self._body = lanes.step(self._body, self._lanes[:, 1], self._keys(self._lanes[:, 0]))
        self.forwards[stage] += lanes.forwards * len(self._lanes)
        self.backwards[stage] += lanes.backwards * len(self._lanes)
        self._settle(lanes, np.flatnonzero(lanes.success(self._body)))
        self._lanes[:, 1] += 1
        over = self._lanes[:, 1] >= self.stages[stage].attack.evaluations
        fooled = ~self.records.robust[self._jobs[self._lanes[:, 0], 0]]
        self._keep(lanes, ~(over | fooled))

    def _enter(self, stage: int) -> None:
        """Lists the stage's jobs: all images with their likeliest target first, then with the next."""
        self._stage, self._next = stage, 0
        self._body, self._lanes, self._jobs = {}, self._lanes[:0], self._jobs[:0]
        if stage < len(self.stages):
            images, it = np.flatnonzero(self.records.robust), self.stages[stage]
            restarts = range(it.first, it.first + it.restarts)
            runs = [(restart, rank) for rank in range(max(it.targets, 1)) for restart in restarts]
            self._jobs = np.array([(i, *run) for run in runs for i in images], int).reshape(-1, len(_JOB))

    def _fill(self) -> None:
        """Gives the free places of the batch to the next jobs."""
        chosen: list[int] = []
        robust = self.records.robust
        while len(self._lanes) + len(chosen) < self.batch_size and self._next < len(self._jobs):
            if robust[self._jobs[self._next, 0]]:
                chosen.append(self._next)
            self._next += 1
        if not chosen:
            return
        lanes, jobs = self._of(self._stage), np.array(chosen)
        rows = self._jobs[jobs, 0]
        pixels = self.classifier.host_pixels(self._images[rows])
        fresh = lanes.fresh(pixels, self.records.label[rows], self._target(jobs), self._keys(jobs))
        self._body = lanes.concat(self._body, fresh) if len(self._lanes) else fresh
        self._lanes = np.concatenate((self._lanes, np.stack((jobs, np.zeros_like(jobs)), axis=1)))

    def _settle(self, lanes: Lanes, claims: Array) -> None:
        """Verifies what the lanes say they have found, and writes down what holds."""
        if not len(claims):
            return
        points = lanes.adversarial(self._body, claims.tolist())
        jobs = self._lanes[claims, 0]
        rows = self._jobs[jobs, 0]
        originals = self.classifier.host_pixels(self._images[rows])
        attack = self.stages[self._stage].attack
        distance = lengths(points.astype(np.float64) - originals, attack.norm)
        low, high = attack.bounds
        flat = points.reshape(len(points), -1)
        allowed = (
            np.isfinite(flat).all(1)
            & (flat >= low).all(1)
            & (flat <= high).all(1)
            & (distance <= attack.epsilon * (1 + _SLACK[attack.norm]) + 1e-7)
        )
        predicted = self._verified(points, self.records.label[rows])
        holds = allowed & (predicted != self.records.label[rows])
        for i in np.flatnonzero(holds).tolist():
            row, job = rows[i], self._jobs[jobs[i]]
            if self.records.attack[row] != NONE:
                continue  # another target was found in the same step
            self.records.predicted[row], self.records.attack[row] = predicted[i], self._stage
            self.records.target[row] = self._target(jobs[i : i + 1])[0] if self._is_targeted() else NONE
            self.records.restart[row], self.records.iteration[row] = job[1], self._lanes[claims[i], 1]
            self.records.distance[row] = distance[i]
            self.found[int(row)] = points[i]

    def _verified(self, points: Array, labels: Array) -> Array:
        """The classes predicted for points; of several forwards the one that errs only if most of them do."""
        samples = self.stages[self._stage].samples
        votes = np.stack([self._predict(points) for _ in range(samples)])
        self.forwards[self._stage] += samples * len(points)
        errs = (votes != labels).mean(axis=0) > 0.5
        first = (votes != labels).argmax(axis=0)
        return np.where(errs, votes[first, np.arange(len(points))], labels)

    def _keep(self, lanes: Lanes, stay: Array) -> None:
        if stay.all():
            return
        rows = np.flatnonzero(stay)
        self._body = lanes.take(self._body, rows.tolist()) if len(rows) else {}
        self._lanes = self._lanes[rows]

    def _is_targeted(self) -> bool:
        return self.stages[self._stage].targets > 0

    def _target(self, jobs: Array) -> Array:
        rows, ranks = self._jobs[jobs, 0], self._jobs[jobs, 2]
        target: Array = self._targets[rows, ranks] if self._is_targeted() else self.records.label[rows]
        return target

    def _keys(self, jobs: Array) -> counter_random.Keys:
        rows, restarts, ranks = self._jobs[jobs].T
        attack = IDS[self.stages[self._stage].name]
        return counter_random.keys(self._seed, attack, restarts, ranks, self._positions[rows])

    def _of(self, stage: int) -> Lanes:
        return self._lanes_of(self.stages[stage].attack)

    # To be stopped and to go on

    def save(self) -> dict[str, Array]:
        """All of it, as host arrays that stay as they are; `load` goes on from there, bit for bit."""
        lanes = self._of(self._stage).save(self._body) if len(self._lanes) else {}
        arrays = {
            "stage": self._stage,
            "next": self._next,
            "jobs": self._jobs,
            "lanes": self._lanes,
            "forwards": self.forwards,
            "backwards": self.backwards,
            "seconds": self.seconds,
            **{f"record/{name}": array for name, array in self.records.arrays().items()},
            **{f"lane/{name}": array for name, array in lanes.items()},
        }
        return {name: np.array(array) for name, array in arrays.items()}

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Goes on from what `save` gave."""
        self._stage, self._next = int(arrays["stage"]), int(arrays["next"])
        self._jobs, self._lanes = np.array(arrays["jobs"]), np.array(arrays["lanes"])
        self.forwards, self.backwards = np.array(arrays["forwards"]), np.array(arrays["backwards"])
        self.seconds = np.array(arrays["seconds"])
        self.records = Records.of(under("record", arrays))
        lanes = under("lane", arrays)
        self._body = self._of(self._stage).load(lanes) if lanes else {}


def under(folder: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Those whose name begins with `folder/`, without it."""
    return {name[len(folder) + 1 :]: a for name, a in arrays.items() if name.startswith(f"{folder}/")}


def _by_rank(logits: Array, labels: Array) -> Array:
    """(N, C − 1): the other classes than the label, the likeliest first."""
    order = np.argsort(-logits, axis=1, kind="stable")
    others: Array = order[order != labels[:, None]].reshape(len(labels), -1)
    return others
