"""Cascade of attacks: each runs on the images still robust, always from the natural image.

A *job* is one run: an image, a restart, a target class. As many jobs as fit in a batch run at once, as lanes; a
lane whose image has been fooled, or whose steps are used up, makes room for the next job. A success counts only
once verified: by a fresh forward, in the ball, in range and finite. A stage that looks for the nearest example
keeps its lanes to their last step, and the nearest verified example of an image, in the ball or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stcore.attacks import counter_random
from stcore.attacks.malt import MALT
from stcore.attacks.minimum_norm import NEARER
from stcore.attacks.presets import RAND
from stcore.attacks.stepped import HostAttack, SteppedAttack
from stcore.autoattack.lanes import Body, Lanes, lanes_on
from stcore.autoattack.records import NONE, Records
from stcore.autoattack.versions import IDS, Stage
from stcore.base import checks
from stcore.core import validation
from stcore.core.threat import lengths, reach
from stcore.data.rows import Images
from stcore.errors import DataError
from stcore.protocols import Array, Classifier

_JOB = ("image", "restart", "rank")  # columns of a job: image row, restart number, target rank
_LANE = ("job", "step")
NOT_FINITE, OUT_OF_RANGE, OUTSIDE = "not finite", "out of range", "outside the ball"
"""What bars a point from being a success."""


class Cascade:
    """Runs stages on a data set, step by step: `while cascade.advance(): …`; it can be saved between steps.

    images: host images (N, H, W, C) or flat, uint8 or floats.   labels: (N,), integers.
    logits: (N, C), of the natural images.   predict: host points (B, …) → classes (B,), by a forward of its own.
    positions: (N,), each image's place in the whole data set, which addresses its noise; by default 0 to N − 1.
    batch_size: number of lanes at one time.   lanes: makes an attack's lanes; by default compiled for
    `classifier`. Raises UsageError for a value out of range, or a model in half precision.
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
        """Adversarial examples by row; a reader may empty it."""
        self._images, self._predict, self._seed = images, predict, seed
        self._positions = np.arange(len(images)) if positions is None else positions
        self._targets = _by_rank(logits, labels)
        self._orders = any(isinstance(stage.attack, MALT) for stage in stages)
        self._lanes_of = lanes or lanes_on(classifier)
        self._stage, self._next = 0, 0
        self._body: Body = {}
        self._lanes: Array = np.zeros((0, len(_LANE)), int)
        self._keys: counter_random.Keys = np.zeros(0, np.uint64)
        """Of each lane: derived from its job."""
        self._jobs: Array = np.zeros((0, len(_JOB)), int)
        validation.check_precision(classifier, images.shape[1:])
        self._vote_on_natural(max((stage.samples for stage in self.stages), default=1))
        self._enter(0)

    # State

    @property
    def stage(self) -> int:
        """The index of the current stage; the number of stages when all are done."""
        return self._stage

    @property
    def waiting(self) -> int:
        """The number of steps that the current stage has left if it finds nothing more."""
        stage = self.stages[self._stage]
        images = self._jobs[self._next :, 0]
        runs = len(self._lanes) + (int((~self._settled(images)).sum()) if len(images) else 0)
        return runs * stage.attack.evaluations - int(self._lanes[:, 1].sum())

    # Steps

    def advance(self) -> bool:
        """Makes one step of all lanes, or enters the next stage; returns False when all stages are done."""
        if self._stage == len(self.stages):
            return False
        start = time.monotonic()
        self._fill()
        if len(self._lanes):
            self._step()
            self.seconds[self._stage] += time.monotonic() - start
        else:
            self._enter(self._stage + 1)
        return True

    def _step(self) -> None:
        lanes, stage = self._of(self._stage), self._stage
        self._body = lanes.step(self._body, self._lanes[:, 1], self._keys)
        self.forwards[stage] += lanes.forwards * len(self._lanes)
        self.backwards[stage] += lanes.backwards * len(self._lanes)
        if isinstance(self.stages[stage].attack, MALT):
            self._order_targets()
        (claims,) = lanes.success(self._body).nonzero()
        self._settle(lanes, claims)
        self._lanes[:, 1] += 1
        over = self._lanes[:, 1] >= self.stages[stage].attack.evaluations
        if len(claims) or over.any():  # no other lane leaves
            self._keep(lanes, ~(over | self._settled(self._jobs[self._lanes[:, 0], 0])))

    def _order_targets(self) -> None:
        """Orders the targets of the images under measurement by their distances, the nearest first."""
        rows = self._jobs[self._lanes[:, 0], 0]
        distances, targets = self.classifier.ops.to_numpy(self._body["distances"]), self._targets[rows]
        order = np.argsort(np.take_along_axis(distances, targets, axis=1), axis=1, kind="stable")
        self._targets[rows] = np.take_along_axis(targets, order, axis=1)

    def _enter(self, stage: int) -> None:
        """Lists a stage's jobs: all robust images with their first target, then with the next."""
        self._stage, self._next = stage, 0
        self._body, self._lanes, self._keys, self._jobs = {}, self._lanes[:0], self._keys[:0], self._jobs[:0]
        if stage < len(self.stages):
            images, entered = np.flatnonzero(self.records.robust), self.stages[stage]
            restarts = range(entered.first, entered.first + entered.restarts)
            runs = [(restart, rank) for rank in range(max(entered.targets, 1)) for restart in restarts]
            self._jobs = np.array([(i, *run) for run in runs for i in images], int).reshape(-1, len(_JOB))

    def _fill(self) -> None:
        """Starts the next jobs in the free places of the batch."""
        if self._next == len(self._jobs) or len(self._lanes) >= self.batch_size:
            return
        chosen: list[int] = []
        settled = self._settled(np.arange(len(self._images)))
        while len(self._lanes) + len(chosen) < self.batch_size and self._next < len(self._jobs):
            if not settled[self._jobs[self._next, 0]]:
                chosen.append(self._next)
            self._next += 1
        if not chosen:
            return
        lanes, jobs = self._of(self._stage), np.array(chosen)
        rows = self._jobs[jobs, 0]
        pixels = self.classifier.host_pixels(self._images[rows])
        keys = self._keys_of(jobs)
        fresh = lanes.fresh(pixels, self.records.label[rows], self._target(jobs), keys)
        self._body = lanes.concat(self._body, fresh) if len(self._lanes) else fresh
        self._lanes = np.concatenate((self._lanes, np.stack((jobs, np.zeros_like(jobs)), axis=1)))
        self._keys = np.concatenate((self._keys, keys))

    def _settle(self, lanes: Lanes, claims: Array) -> None:
        """Verifies the successes that lanes claim, and records the valid ones."""
        if not len(claims):
            return
        points = lanes.adversarial(self._body, claims.tolist())
        rows = self._jobs[self._lanes[claims, 0], 0]
        originals = self.classifier.host_pixels(self._images[rows])
        stage = self.stages[self._stage]
        attack = stage.attack
        barred, distance = check_points(points, originals, attack.norm, attack.epsilon, attack.bounds)
        if stage.nearest:  # the rest are not worth a forward
            nearer = ~(distance >= NEARER * self.records.distance[rows])  # the first is: NaN stands there
            claims, points, rows, distance = claims[nearer], points[nearer], rows[nearer], distance[nearer]
            barred = barred[nearer]
            if not len(claims):
                return
        jobs, within = self._lanes[claims, 0], barred == ""
        predicted = self._verified(points, self.records.label[rows], stage.samples)
        valid = (within | (stage.nearest & (barred == OUTSIDE))) & (predicted != self.records.label[rows])
        for i in np.flatnonzero(valid).tolist():
            row, job = rows[i], self._jobs[jobs[i]]
            if self._settled(row) or distance[i] >= NEARER * self.records.distance[row]:
                continue  # another run of this step was recorded
            if within[i]:
                self.records.predicted[row], self.records.attack[row] = predicted[i], self._stage
                self.records.target[row] = self._target(jobs[i : i + 1])[0] if self._is_targeted() else NONE
                self.records.restart[row], self.records.iteration[row] = job[1], self._lanes[claims[i], 1]
            self.records.distance[row] = distance[i]
            self.found[int(row)] = points[i]

    def _settled(self, images: Array) -> Array:
        """Booleans: of which of these images no example is looked for any more."""
        settled: Array = ~(self.records.robust[images] | self.stages[self._stage].nearest)
        return settled

    def _vote_on_natural(self, samples: int) -> None:
        """For a random network: an image that one forward misclassified is wrong only if most of `samples` are."""
        if samples == 1:
            return
        wrong = np.flatnonzero(~self.records.robust)
        for begin in range(0, len(wrong), self.batch_size):
            rows = wrong[begin : begin + self.batch_size]
            pixels = self.classifier.host_pixels(self._images[rows])
            self.records.natural[rows] = self._verified(pixels, self.records.label[rows], samples)
            self.records.predicted[rows] = self.records.natural[rows]

    def _verified(self, points: Array, labels: Array, samples: int) -> Array:
        """Returns the classes predicted for points; over several forwards a wrong class only if most are wrong."""
        votes = np.stack([self._predict(points) for _ in range(samples)])
        self.forwards[self._stage] += samples * len(points)
        wrong = (votes != labels).mean(axis=0) > 0.5
        first_wrong = (votes != labels).argmax(axis=0)
        return np.where(wrong, votes[first_wrong, np.arange(len(points))], labels)

    def _keep(self, lanes: Lanes, stay: Array) -> None:
        if stay.all():
            return
        rows = np.flatnonzero(stay)
        self._body = lanes.take(self._body, rows.tolist()) if len(rows) else {}
        self._lanes, self._keys = self._lanes[rows], self._keys[rows]

    def _is_targeted(self) -> bool:
        return self.stages[self._stage].targets > 0

    def _target(self, jobs: Array) -> Array:
        rows, ranks = self._jobs[jobs, 0], self._jobs[jobs, 2]
        target: Array = self._targets[rows, ranks] if self._is_targeted() else self.records.label[rows]
        return target

    def _keys_of(self, jobs: Array) -> counter_random.Keys:
        rows, restarts, ranks = self._jobs[jobs].T
        attack = IDS.get(self.stages[self._stage].name.removesuffix(RAND), 0)  # 0: it draws nothing
        return counter_random.keys(self._seed, attack, restarts, ranks, self._positions[rows])

    def _of(self, stage: int) -> Lanes:
        return self._lanes_of(self.stages[stage].attack)

    # Saving and resuming

    def save(self) -> dict[str, Array]:
        """Returns the complete state as copies in host arrays; `load` resumes from it, bit for bit."""
        lanes = self._of(self._stage).save(self._body) if len(self._lanes) else {}
        arrays = {
            "stage": self._stage,
            "next": self._next,
            "jobs": self._jobs,
            "lanes": self._lanes,
            "forwards": self.forwards,
            "backwards": self.backwards,
            "seconds": self.seconds,
            **({"targets": self._ordered()} if self._orders else {}),
            **{f"record/{name}": array for name, array in self.records.arrays().items()},
            **{f"lane/{name}": array for name, array in lanes.items()},
        }
        return {name: np.array(array) for name, array in arrays.items()}

    def load(self, arrays: Mapping[str, Array]) -> None:
        """Resumes from the state that `save` returned, in a cascade with the same settings.

        Raises DataError for a state from before autoattack-fast ordered its targets, whose stages are others.
        """
        if self._orders and "targets" not in arrays:
            raise DataError(
                "state: expected one with an order of targets; received one of an earlier version, with other "
                "attacks. Begin the evaluation anew, in another folder"
            )
        self._stage, self._next = int(arrays["stage"]), int(arrays["next"])
        self._jobs, self._lanes = np.array(arrays["jobs"]), np.array(arrays["lanes"])
        self.forwards, self.backwards = np.array(arrays["forwards"]), np.array(arrays["backwards"])
        self.seconds = np.array(arrays["seconds"])
        self.records = Records.of(under("record", arrays))
        if self._orders:
            self._ordered()[:] = arrays["targets"]
        lanes = under("lane", arrays)
        self._body = self._of(self._stage).load(lanes) if lanes else {}
        self._keys = self._keys_of(self._lanes[:, 0]) if lanes else self._keys[:0]

    def _ordered(self) -> Array:
        """The targets (N, K) that later stages try, as a view: K is the most targets of a stage."""
        return self._targets[:, : max(stage.targets for stage in self.stages)]


def check_points(
    points: Array, originals: Array, norm: str, epsilon: float, bounds: tuple[float, float] = (0.0, 1.0)
) -> tuple[Array, Array]:
    """What bars each host point (B, …) from being a success, (B,) texts, and its distance from the image, (B,).

    A text is NOT_FINITE, OUT_OF_RANGE or OUTSIDE, the ball of radius ε around `originals` (B, …); else empty.
    """
    flat, (low, high) = points.reshape(len(points), -1), bounds
    with np.errstate(invalid="ignore"):  # of what is not finite
        distance = lengths(points.astype(np.float64) - originals, norm)
    conditions = {
        NOT_FINITE: ~np.isfinite(flat).all(1),
        OUT_OF_RANGE: (flat < low).any(1) | (flat > high).any(1),
        OUTSIDE: ~(distance <= reach(epsilon, norm)),
    }
    return np.select(list(conditions.values()), list(conditions), ""), distance


def under(folder: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Returns the arrays whose names start with `folder/`, under the rest of their names."""
    return {name[len(folder) + 1 :]: a for name, a in arrays.items() if name.startswith(f"{folder}/")}


def _by_rank(logits: Array, labels: Array) -> Array:
    """Returns (N, C − 1): all classes but the label, the likeliest first."""
    order = np.argsort(-logits, axis=1, kind="stable")
    others: Array = order[order != labels[:, None]].reshape(len(labels), -1)
    return others
