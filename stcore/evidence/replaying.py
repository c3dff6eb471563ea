"""Replay of evidence: one forward of each adversarial image, in either framework, and what that confirms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stcore.autoattack.cascade import check_points
from stcore.base.progress import Progress, Silent, stretch
from stcore.core import validation
from stcore.data.images import ImageData
from stcore.data.pixels import unit_interval
from stcore.errors import DataError
from stcore.evaluation.accuracy import Accuracy
from stcore.evaluation.results import as_json
from stcore.evidence.building import same_images
from stcore.evidence.code import code
from stcore.evidence.differences import decode
from stcore.evidence.file import BLOCK, REFUTATION, Evidence, image_digest
from stcore.evidence.sampling import Standing, restated
from stcore.protocols import Array, Classifier

CONFIRMED = "confirmed"
OTHER_IMAGE, OTHER_LABEL = "another image", "another label"
BORDERLINE, CORRECT = "borderline", "classified correctly"
BORDER = 1e-4
"""The margin, as a share of the image's largest logit, within which another framework's rounding may decide."""
MEANINGS = {
    OTHER_IMAGE: "the data have another image at this position, so that the adversarial one cannot be restored",
    OTHER_LABEL: "the data give this image another label than the evidence",
    "not finite": "a pixel is NaN or infinite",
    "out of range": "a pixel is outside the range",
    "outside the ball": "the image is further from the natural one than ε",
    BORDERLINE: "the network here gives the right class by a margin that is rounding, as good as a tie",
    CORRECT: "the network here gives the right class, and not by rounding: it is another one, or random",
}
"""Why a success is not confirmed."""


@dataclass(frozen=True, eq=False)
class Replay:
    """What a replay found of n recorded successes.

    status: (n,) text: confirmed, or why not (`MEANINGS`).   predicted: (n,) the classes predicted here, −1 without
    a forward.   margin: (n,) z_y − max z_j here, above 0 if the label wins; NaN without a forward.
    distance: (n,) in the claim's norm, as measured here; NaN if the image cannot be restored.
    same_data: whether the whole test split is that of the evidence.
    restatement: of a refutation, what follows from the confirmed successes alone; else None.
    """

    evidence: Evidence
    status: Array
    predicted: Array
    margin: Array
    distance: Array
    same_data: bool
    restatement: Standing | None = None

    @property
    def confirmed(self) -> int:
        """The number of successes that are confirmed."""
        return int((self.status == CONFIRMED).sum())

    @property
    def complete(self) -> bool:
        """Whether every success is confirmed, and with it a refutation's order."""
        return self.confirmed == len(self.status) and (self.restatement is None or self.restatement.agrees)

    @property
    def at_most(self) -> Accuracy:
        """The images that remain if only what is confirmed counts: an upper bound of the robust accuracy."""
        total = len(self.evidence.evaluated)
        return Accuracy(total - self.confirmed, total)

    @property
    def reasons(self) -> dict[str, int]:
        """Why successes are not confirmed, with the number of each."""
        return {reason: n for reason in MEANINGS if (n := int((self.status == reason).sum()))}

    @property
    def unconfirmed(self) -> list[dict[str, Any]]:
        """Each success that is not confirmed: its row, reason, margin and classes."""
        rows = np.flatnonzero(self.status != CONFIRMED).tolist()
        return [
            {
                "row": int(self.evidence.row[i]),
                "reason": str(self.status[i]),
                "label": int(self.evidence.label[i]),
                "recorded": int(self.evidence.predicted[i]),
                "predicted": None if self.predicted[i] < 0 else int(self.predicted[i]),
                "margin": _plain(self.margin[i]),
                "distance": _plain(self.distance[i]),
            }
            for i in rows
        ]

    @property
    def other_class(self) -> int:
        """The number of confirmed successes with another wrong class here than recorded."""
        return int(((self.status == CONFIRMED) & (self.predicted != self.evidence.predicted)).sum())

    @property
    def not_checked(self) -> list[str]:
        """What no replay, or not this one, could check, a sentence each."""
        header, failed = self.evidence.header, self.evidence.at_most
        notes = [
            f"{failed.correct} of {failed.total} images count as robust only since the attacks failed. That is no "
            "proof: the accuracy is an upper bound"
        ]
        if not self.same_data:
            notes.append(
                "The test split is another one than that of the evidence, so that only the images with a success, "
                "whose digests the evidence has, are known to be the same"
            )
        if header["code"] != code():
            notes.append(
                f"The attacks were written by other code (stcore {header['code'].get('stcore')}). A success does "
                "not depend on it"
            )
        if self.restatement is not None:
            notes += self.restatement.not_checked
        return notes

    def as_json(self) -> dict[str, Any]:
        """The result in JSON's types."""
        return {
            "seal": self.evidence.seal,
            "kind": self.evidence.header["kind"],
            "claim": self.evidence.header["claim"],
            "successes": len(self.status),
            "confirmed": self.confirmed,
            "complete": self.complete,
            "robust_at_most": as_json({"it": self.at_most})["it"],
            "reasons": self.reasons,
            "unconfirmed": self.unconfirmed,
            "other_class": self.other_class,
            "same_data": self.same_data,
            "not_checked": self.not_checked,
            "restatement": None if self.restatement is None else self.restatement.as_json(),
        }


def replay(
    evidence: Evidence,
    classifier: Classifier,
    test: ImageData,
    *,
    batch_size: int = 250,
    progress: Progress | None = None,
) -> Replay:
    """Verifies each success of the evidence: the image and its label, the ball and the range, one forward.

    classifier: the network, in the dtype of the evidence's points.   test: the test split.
    Raises DataError if the test split has images of another shape, DivergedError for a logit that is NaN or +∞.
    """
    header = evidence.header
    if list(test.image_shape) != header["network"]["image_shape"]:
        raise DataError(
            f"data: expected images of shape {tuple(header['network']['image_shape'])}; received "
            f"{test.image_shape}. Name the place of the evidence's data by --dataset"
        )
    same = same_images(test, header["data"]["sha256"], (header["data"]["images"],))
    count = len(evidence.row)
    status = np.full(count, CONFIRMED, "<U24")
    predicted, margin, distance = np.full(count, -1), np.full(count, np.nan), np.full(count, np.nan)
    with stretch(progress or Silent(), "replay", count):
        for block, natural, points in _blocks(evidence, same or test, status):
            known = status[block] == CONFIRMED
            barred, apart = check_points(
                points,
                unit_interval(natural, points.dtype),
                header["claim"]["norm"],
                header["claim"]["epsilon"],
                tuple(header["claim"]["bounds"]),
            )
            distance[block] = np.where(status[block] == OTHER_IMAGE, np.nan, apart)
            status[block] = np.where(known & (barred != ""), barred, status[block])
            valid = np.flatnonzero(known & (barred == ""))
            for begin in range(0, len(valid), batch_size):
                chosen = valid[begin : begin + batch_size]
                at = block.start + chosen
                found = np.asarray(classifier.eval_logits(classifier.images(points[chosen])), np.float64)
                logits = validation.check_finite(found)
                predicted[at] = logits.argmax(axis=1)
                margin[at], small = _margins(logits, evidence.label[at])
                right = predicted[at] == evidence.label[at]
                status[at] = np.where(right, np.where(small, BORDERLINE, CORRECT), CONFIRMED)
            if progress is not None:
                progress.advance(len(natural))
    statement = restated(evidence, status == CONFIRMED) if header["kind"] == REFUTATION else None
    return Replay(evidence, status, predicted, margin, distance, same is not None, statement)


def _blocks(evidence: Evidence, test: ImageData, status: Array) -> Iterator[tuple[slice, Array, Array]]:
    """The packed blocks: their places, natural images and points; notes in `status` whose data are others."""
    for number, packed in enumerate(evidence.differences):
        block = slice(number * BLOCK, min((number + 1) * BLOCK, len(evidence.row)))
        rows = evidence.row[block]
        there = rows < len(test)
        natural = test.images[np.where(there, rows, 0)]
        same = there & [
            bool((image_digest(image) == it).all())
            for image, it in zip(natural, evidence.image[block], strict=True)
        ]
        status[block] = np.where(same, status[block], OTHER_IMAGE)
        labels = test.labels[np.where(there, rows, 0)]
        status[block] = np.where(same & (labels != evidence.label[block]), OTHER_LABEL, status[block])
        yield block, natural, decode(packed, natural, evidence.header["dtype"])


def _margins(logits: Array, labels: Array) -> tuple[Array, Array]:
    """The margins (B,) of the labels, and whether each is within rounding."""
    rows = np.arange(len(labels))
    own = logits[rows, labels]
    others = logits.copy()
    others[rows, labels] = -np.inf
    margins: Array = own - others.max(axis=1)
    finite = np.where(np.isfinite(logits), np.abs(logits), 0)
    return margins, np.abs(margins) <= BORDER * finite.max(axis=1)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
