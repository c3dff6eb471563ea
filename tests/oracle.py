"""Squeeze training by hand, in plain PyTorch: written from the paper alone, to compare stcore with.

It shares no code with stcore: a network of its own (linear, batch norm, ReLU, dropout, linear) as bare tensors,
the search of Algorithm 1, Eq. 6, and stochastic gradient descent with momentum. All in float64.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

FEATURES, HIDDEN, CLASSES = 12, 16, 4
KEEP = 0.5
"""The share of hidden units that dropout keeps."""


def mask(number, batch):
    """The factors (batch, HIDDEN) of the hidden units in the forward with dropout of this number, from 0."""
    kept = np.random.default_rng([7, number]).uniform(size=(batch, HIDDEN)) < KEEP
    return kept / KEEP


def weights(seed=0):
    """Names as of `torch.nn.Sequential`, arrays in torch's layout."""
    rng = np.random.default_rng(seed)
    return {
        "0.weight": rng.normal(0, 0.6, (HIDDEN, FEATURES)),
        "0.bias": rng.normal(0, 0.3, HIDDEN),
        "1.weight": rng.uniform(0.5, 1.5, HIDDEN),
        "1.bias": rng.normal(0, 0.3, HIDDEN),
        "4.weight": rng.normal(0, 0.6, (CLASSES, HIDDEN)),
        "4.bias": rng.normal(0, 0.3, CLASSES),
    }


def batches(count=3, size=10, seed=1):
    """(x, y, (noise of x', noise of x'')) of each step, as arrays; some pixels lie on the edges of [0, 1]."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        x = rng.uniform(-0.1, 1.1, (size, FEATURES)).clip(0, 1)
        yield x, rng.integers(CLASSES, size=size), tuple(rng.normal(size=x.shape) for _ in range(2))


@dataclass
class Oracle:
    """The state of training: parameters, their velocities, running statistics; `step` makes one update."""

    parameters: dict = field(default_factory=lambda: {n: torch.tensor(a) for n, a in weights().items()})
    epsilon: float = 8 / 255
    step_size: float = 2 / 255
    steps: int = 10
    beta: float = 6.0
    noise_std: float = 1e-3
    rate: float = 0.1
    momentum: float = 0.9
    decay: float = 5e-4

    def __post_init__(self):
        self.velocities = {name: torch.zeros_like(p) for name, p in self.parameters.items()}
        self.mean, self.variance = torch.zeros(HIDDEN).double(), torch.ones(HIDDEN).double()
        self.dropped = self.written = 0

    def logits(self, p, x, *, dropout, write):
        """One forward under the statistics of its own batch."""
        hidden = x @ p["0.weight"].T + p["0.bias"]
        mean, count = hidden.mean(0), len(hidden)
        variance = ((hidden - mean) ** 2).mean(0)
        if write:
            self.mean = 0.9 * self.mean + 0.1 * mean.detach()
            self.variance = 0.9 * self.variance + 0.1 * variance.detach() * count / (count - 1)
            self.written += 1
        hidden = (hidden - mean) / (variance + 1e-5).sqrt() * p["1.weight"] + p["1.bias"]
        hidden = hidden.clamp(min=0)
        if dropout:
            hidden = hidden * torch.tensor(mask(self.dropped, count))
            self.dropped += 1
        return hidden @ p["4.weight"].T + p["4.bias"]

    def search(self, x, y, noise):
        """x' and x'' after K updates: no dropout, no statistic written."""
        adversarial, collaborative = (x + self.noise_std * n for n in noise)
        for _ in range(self.steps):
            points = [one.clone().requires_grad_() for one in (x, adversarial, collaborative)]
            z = [self.logits(self.parameters, one, dropout=False, write=False) for one in points]
            highest, lowest = select(z, y)
            divergence(pick(z, lowest), pick(z, highest)).sum().backward()
            gradients = [torch.zeros_like(x) if one.grad is None else one.grad for one in points]
            adversarial, collaborative = (
                self.project(pick(points, who).detach() + self.step_size * pick(gradients, who).sign(), x)
                for who in (highest, lowest)
            )
        return adversarial, collaborative

    def project(self, point, x):
        return torch.minimum(torch.maximum(point, x - self.epsilon), x + self.epsilon).clamp(0, 1)

    def step(self, x, y, noise):
        """One update; returns the loss."""
        x, y, noise = torch.tensor(x), torch.tensor(y), [torch.tensor(n) for n in noise]
        adversarial, collaborative = self.search(x, y, noise)
        p = {name: one.clone().requires_grad_() for name, one in self.parameters.items()}
        third = self.logits(p, collaborative, dropout=True, write=False)
        first = self.logits(p, x, dropout=True, write=True)
        second = self.logits(p, adversarial, dropout=True, write=True)
        z = [first, second, third]
        highest, lowest = select(z, y)
        loss = (cross_entropy(first, y) + self.beta * divergence(pick(z, lowest), pick(z, highest))).mean()
        loss.backward()
        self.update(p)
        return loss.item()

    def update(self, p):
        """One step of SGD with momentum by the gradients of p."""
        for name, one in p.items():
            gradient = one.grad + self.decay * self.parameters[name]
            self.velocities[name] = self.momentum * self.velocities[name] + gradient
            self.parameters[name] = self.parameters[name] - self.rate * self.velocities[name]

    def state(self):
        """Parameters and running statistics, by name."""
        arrays = {name: p.numpy() for name, p in self.parameters.items()}
        return arrays | {"1.running_mean": self.mean.numpy(), "1.running_var": self.variance.numpy()}


def cross_entropy(z, y):
    return torch.logsumexp(z, 1) - z[torch.arange(len(y)), y]


def select(z, y):
    """Per example, which of natural, adversarial, collaborative (0, 1, 2) has the highest and the lowest loss."""
    losses = torch.stack([cross_entropy(one, y) for one in z]).detach().numpy()
    return losses.argmax(0), losses.argmin(0)


def pick(values, who):
    return torch.stack([values[which][row] for row, which in enumerate(who)])


def divergence(z, w):
    """The symmetric KL, per example; the target of each half is a constant."""
    p, q = torch.softmax(z, 1), torch.softmax(w, 1)
    return 0.5 * (directed(p.detach(), q) + directed(q.detach(), p))


def directed(target, other):
    return (target * (target.log() - other.log())).sum(1)
