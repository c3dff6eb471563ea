"""The checks of an audit in their order, each with the meaning of its outcomes."""

from __future__ import annotations

from stcore.audit.advice import ALONE, ANY_SCALE, AVERAGES, LAYER, NO_GRADIENTS
from stcore.audit.finding import Check
from stcore.audit.gradients import (
    cross_entropy_vanishes,
    dlr_vanishes,
    gradient_explains_loss,
    unbounded_attack_fails,
    zero_budget_changes_predictions,
)
from stcore.audit.network import (
    ignores_neighbours,
    is_deterministic,
    logits_are_finite,
    logits_are_graded,
    logits_differ,
    outputs_are_logits,
    predicts_several_classes,
)
from stcore.audit.strength import more_steps, noise_wins, other_loss_wins, square_wins, transfer_wins

CHECKS = (
    Check(
        "finite logits",
        logits_are_finite,
        "All logits are finite.",
        "Logits are NaN or +∞, so predictions are arbitrary. The weights have diverged, or the images are not in "
        "the range that the network expects. Load another checkpoint.",
        quick=True,
    ),
    Check(
        "several classes",
        predicts_several_classes,
        "The network predicts several classes.",
        "Every image gets the same class, whatever the attack, so an accuracy is that class's share and means "
        "nothing. Training has collapsed: train again with a smaller β or ε, or a lower learning rate.",
        quick=True,
    ),
    Check(
        "logits, not probabilities",
        outputs_are_logits,
        "The outputs are logits, as the losses expect.",
        "The outputs are probabilities. The losses apply a second softmax, gradients vanish, and attacks are "
        "weaker than they should be. Remove the final softmax or argmax layer.",
        quick=True,
    ),
    Check(
        "graded logits",
        logits_are_graded,
        "The logits take many values, by which losses rank images.",
        "Many logits have one of two values, as behind an argmax layer, a clip or a tanh: no loss sees how near "
        "an image is to another class, and gradients vanish. Remove that layer, or use "
        f"{LAYER}, {NO_GRADIENTS}, and {ANY_SCALE}.",
        quick=True,
    ),
    Check(
        "logits that differ",
        logits_differ,
        "The softmax prefers classes clearly.",
        "The softmax is nearly flat: the cross-entropy pushes towards all classes at once, and the accuracy under "
        f"PGD and APGD-CE is too high. Use {ANY_SCALE}.",
        quick=True,
    ),
    Check(
        "same answer each time",
        is_deterministic,
        "The network is deterministic.",
        "The network is random: an accuracy is a random draw, and one lucky draw ends an attack. Evaluate with "
        f"{AVERAGES}, which averages gradients (EOT) and decides every success by a vote of repeated forwards.",
        quick=True,
    ),
    Check(
        "each image by itself",
        ignores_neighbours,
        "An image's logits do not depend on the rest of its batch.",
        "An image's logits depend on the rest of its batch, so that accuracies change with the batch size: layers "
        "normalise by the batch also in evaluation, as with track_running_stats=False, or let the batch vote. "
        f"Train with running statistics, and attack each image {ALONE}.",
        quick=True,
    ),
    Check(
        "no budget, no harm",
        zero_budget_changes_predictions,
        "An attack with ε = 0 changes no prediction.",
        "An attack with ε = 0 changes predictions, so the accuracy measures something else: pixels out of bounds, "
        "or a network that is random or depends on the rest of the batch. Fix that first.",
    ),
    Check(
        "gradient of cross-entropy",
        cross_entropy_vanishes,
        "PGD and APGD-CE have a gradient to follow.",
        "The gradient is zero or non-finite, so PGD and APGD-CE do not move. If the gradient of DLR is in order, "
        f"the logits are too large for the softmax: use {ANY_SCALE}. If not, see that check.",
        quick=True,
    ),
    Check(
        "gradient of DLR",
        dlr_vanishes,
        "Attacks on differences of logits have a gradient to follow.",
        "The gradient is zero or non-finite: part of the network, such as rounding, blocks it. Gradient attacks "
        f"mean nothing. Use {NO_GRADIENTS}, or {LAYER}.",
        quick=True,
    ),
    Check(
        "gradient explains the loss",
        gradient_explains_loss,
        "The loss changes as its gradients predict.",
        "Near an image the loss changes in ways that its gradients do not predict. It jumps, as if only the "
        "largest activations survive, or a part of the network passes on no gradient or another one. Gradient "
        f"attacks are weak there. Use {NO_GRADIENTS}, or {LAYER}.",
        quick=True,
    ),
    Check(
        "whole range as budget",
        unbounded_attack_fails,
        "With an unbounded budget, the gradients lead to errors.",
        "With an unbounded budget accuracy should fall to chance, but it does not: the gradients mislead, and "
        f"accuracies under gradient attacks are too high. Use {NO_GRADIENTS}, or {LAYER}.",
    ),
    Check(
        "more steps",
        more_steps,
        "PGD-20 has converged.",
        "PGD-100 fools clearly more images than PGD-20, whose accuracy is too high; that of PGD-100 may be too "
        "high as well. Report AutoAttack.",
    ),
    Check(
        "another loss",
        other_loss_wins,
        "The margin loss fools few images that withstand the cross-entropy.",
        "C&W fools images that withstand PGD: the cross-entropy misleads on this network, and its PGD accuracy is "
        "too high. Report AutoAttack, which maximises several losses.",
    ),
    Check(
        "no gradients (Square)",
        square_wins,
        "Random search fools almost no image that withstands gradient attacks.",
        "Random search fools images that withstand the gradient attacks, though it is weaker if gradients are "
        "sound: they are masked. Report AutoAttack, and Square with more queries.",
    ),
    Check(
        "random noise",
        noise_wins,
        "Noise fools almost no image that withstands gradient attacks.",
        "Random noise fools images that withstand the gradient attacks: these do not work on this network, and no "
        f"accuracy under them should be trusted. Use {NO_GRADIENTS}, or {LAYER}.",
    ),
    Check(
        "transfer",
        transfer_wins,
        "Another network's examples fool almost no image that withstands gradient attacks.",
        "Another network's examples fool images that withstand the attacks on this one: its gradients are masked. "
        "Its accuracy is at most the share that withstands both.",
    ),
)
"""All checks, in the order in which they run."""

QUICK = tuple(check for check in CHECKS if check.quick)
"""Those that take no attack: thirteen forwards and seven backward passes of the images in all."""
