"""How evenly a router uses its experts, trained with and without the auxiliary loss of Switch Transformers.

Fedus et al. 2021, section 2.2, arXiv:2101.03961: each token goes to the expert of largest probability p, whose output is multiplied by
p; alpha E sum_i f_i P_i is added to the loss. Experts are linear maps here and tokens come in clusters of unequal size, so that there is
something to choose, and a reason to choose unevenly. What is reported is of tokens that training has not seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from conformance.benching.measuring import Step
from conformance.benching.run import Bench
from conformance.benching.studies import Study, Table
from oracle import METHODS

__all__ = ["study", "train"]

ALPHAS = (0.0, 0.01, 0.1, 1.0)
FACTOR = 1.25  # of the capacity, as in the paper


@dataclass
class _Task:
    """Clusters of tokens, each with a linear map of its own to learn."""

    rng: np.random.Generator
    experts: int
    width: int

    def __post_init__(self) -> None:
        self.centres = self.rng.standard_normal((self.experts, self.width)) * 2
        self.maps = self.rng.standard_normal((self.experts, self.width, self.width)) * 1.0
        self.shares = 0.6 ** np.arange(self.experts)
        self.shares /= self.shares.sum()

    def draw(self, tokens: int) -> tuple[np.ndarray, np.ndarray]:
        cluster = self.rng.choice(self.experts, tokens, p=self.shares)
        x = (self.centres[cluster] + self.rng.standard_normal((tokens, self.width))) / np.sqrt(5 * self.width)  # of length about 1
        return x, np.einsum("td,tde->te", x, self.maps[cluster])


def _route(x: np.ndarray, router: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits = x @ router
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities, probabilities.argmax(axis=-1)


def train(alpha: float, *, experts: int = 8, width: int = 16, tokens: int = 512, steps: int = 600, rate: float = 1.0) -> dict[str, float]:
    """Train a router and its experts, and say how evenly they are used.

    Args:
        alpha: factor of the auxiliary loss.
        experts, width, tokens, steps, rate: of the training, by plain gradient descent.
    """
    rng = np.random.default_rng(0)
    task = _Task(rng, experts, width)
    router = rng.standard_normal((width, experts)) * 0.1
    maps = rng.standard_normal((experts, width, width)) * 0.1
    for _ in range(steps):
        x, y = task.draw(tokens)
        probabilities, chosen = _route(x, router)
        gate = probabilities[np.arange(tokens), chosen]
        through = np.einsum("td,tde->te", x, maps[chosen])
        error = (gate[:, None] * through - y) / (tokens * width)  # half the gradient of the mean square by the output
        fractions = np.bincount(chosen, minlength=experts) / tokens
        # By the probabilities, then through the softmax.
        slopes = np.broadcast_to(alpha * experts * fractions / tokens, probabilities.shape).copy()
        slopes[np.arange(tokens), chosen] += 2 * np.sum(error * through, axis=-1)
        slopes = probabilities * (slopes - np.sum(probabilities * slopes, axis=-1, keepdims=True))
        for expert in range(experts):
            own = chosen == expert
            maps[expert] -= rate * width * 2 * x[own].T @ (gate[own, None] * error[own])
        router -= rate * width * x.T @ slopes
    return _used(task, router, maps, experts)


def _used(task: _Task, router: np.ndarray, maps: np.ndarray, experts: int) -> dict[str, float]:
    x, y = task.draw(4096)
    probabilities, chosen = _route(x, router)
    loads = np.bincount(chosen, minlength=experts).astype(np.float64)
    room = int(METHODS["expert_capacity"](tokens=len(x), experts=experts, k=1, capacity_factor=FACTOR))
    got = probabilities.max(axis=-1)[:, None] * np.einsum("td,tde->te", x, maps[chosen])
    return {
        "loss": float(METHODS["switch_load_balance_loss"](probabilities, chosen[:, None])),
        "variation": float(METHODS["load_balance_cv"](loads)),
        "largest load": float(loads.max() / loads.mean()),
        "unused experts": int((loads == 0).sum()),
        "dropped": float(np.maximum(loads - room, 0).sum() / len(x)),
        "task error": float(np.mean((got - y) ** 2) / np.mean(y**2)),
    }


def _run(request: Bench, step: Step) -> Table:
    table: Table = []
    for number, alpha in enumerate(ALPHAS):
        table.append({"alpha": alpha, **train(alpha)})
        step(f"alpha {alpha}", number + 1, len(ALPHAS))
    return table


study = Study(
    _run,
    "alpha: factor of the auxiliary loss; loss: itself, 1 where all is even; variation: of experts' loads; largest load: over the mean; "
    "dropped: tokens beyond a capacity of 1.25; task error: mean square over that of the targets",
)
