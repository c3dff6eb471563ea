"""What an audit asks, and what each answer means to whoever reads the accuracies."""

from __future__ import annotations

from stcore.audit.finding import Check
from stcore.audit.gradients import cross_entropy_vanishes, dlr_vanishes, no_budget_harms, whole_range_wins
from stcore.audit.network import answers_alike, are_logits, is_finite, tells_apart
from stcore.audit.strength import more_steps, noise_wins, other_loss_wins, square_wins, transfer_wins

CHECKS = (
    Check(
        "finite logits",
        is_finite,
        "The network's answers are numbers.",
        "Logits are NaN or +∞, so every prediction is an accident. The weights have diverged, or the images are "
        "not in the range the network wants. Load another checkpoint.",
    ),
    Check(
        "several classes",
        tells_apart,
        "Different images get different answers.",
        "Every image gets the same class, under any attack whatever, so an accuracy is that class' share and "
        "says nothing. Training has collapsed: train anew with a smaller β or ε, or a lower learning rate.",
    ),
    Check(
        "logits, not probabilities",
        are_logits,
        "The losses see what they are made for.",
        "The outputs are probabilities. The losses take a second softmax of them, gradients fade, and attacks may "
        "look weaker than they are. Remove the final softmax.",
    ),
    Check(
        "same answer each time",
        answers_alike,
        "The network has no randomness of its own.",
        "The network answers at random: an accuracy is a draw, and one lucky draw ends an attack. Evaluate with "
        "autoattack-rand, which averages gradients and lets repeated forwards vote on every success.",
    ),
    Check(
        "no budget, no harm",
        no_budget_harms,
        "Without a budget an attack changes no prediction.",
        "An attack with ε = 0 changed predictions, so something else than the attack is measured: pixels out of "
        "their bounds, or a network that answers at random or looks at the rest of the batch. Mend that first.",
    ),
    Check(
        "gradient of cross-entropy",
        cross_entropy_vanishes,
        "PGD and APGD-CE know where to go.",
        "The gradient is zero or no number, so PGD and APGD-CE stand still. If that of DLR is in order, the "
        "logits are too large for the softmax: believe cw100, apgd-dlr and apgd-t. If not, see there.",
    ),
    Check(
        "gradient of DLR",
        dlr_vanishes,
        "Attacks on differences of logits know where to go.",
        "The gradient is zero or no number: something in the network, such as rounding, passes none on. No "
        "gradient attack means anything. Use Square, transfer, and attacks on a smooth stand-in for that part.",
    ),
    Check(
        "whole range as budget",
        whole_range_wins,
        "Given any change whatever, the gradients lead to errors.",
        "Where any change is allowed accuracy should fall to chance, and it does not: the gradients lead nowhere, "
        "and accuracies under gradient attacks are too high. Use Square and transfer.",
    ),
    Check(
        "more steps",
        more_steps,
        "PGD-20 has converged.",
        "PGD-100 finds clearly more than PGD-20, whose accuracy is too high; that of PGD-100 may be so still. "
        "Report AutoAttack.",
    ),
    Check(
        "another loss",
        other_loss_wins,
        "The margin finds little that the cross-entropy misses.",
        "C&W fools images that withstand PGD: the cross-entropy misleads on this network, and its PGD accuracy is "
        "too high. Report AutoAttack, which goes up several losses.",
    ),
    Check(
        "no gradients (Square)",
        square_wins,
        "Random search finds next to nothing that gradients miss.",
        "Random search fools images that withstand the gradient attacks, though it is the weaker where gradients "
        "are sound: they are masked. Report AutoAttack, and Square with more queries.",
    ),
    Check(
        "random noise",
        noise_wins,
        "Noise finds next to nothing that gradients miss.",
        "Mere noise fools images that withstand the gradient attacks: these do not work here, and no accuracy "
        "under them should be believed. Use Square and transfer.",
    ),
    Check(
        "transfer",
        transfer_wins,
        "Another network's examples find next to nothing that gradients miss.",
        "Another network's examples fool images that withstand the attacks on this one: its gradients are masked. "
        "Its accuracy is at most what is left under both.",
    ),
)
"""In the order in which they are asked."""
