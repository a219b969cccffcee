"""What stands in the place of a projection of a module, so that the module attends to arrays that are given."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["Given"]


class Given(nn.Module):
    """Gives a copy of one tensor, whatever it gets: who gets what a projection made may write to it."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value

    def forward(self, _: Tensor) -> Tensor:
        """The copy."""
        return self.value.clone()
