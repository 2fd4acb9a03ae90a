"""The progress bar of an average: drift evaluations done, of those that are expected by now."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from tqdm import tqdm


class EvaluationsBar:
    """A bar on a terminal, whose end moves with what is known of the variances.

    Args:
        shown: Whether it is shown, on a terminal alone.
    """

    def __init__(self, shown: bool) -> None:
        self._bar = tqdm(
            total=0,
            disable=None if shown else True,
            unit="evaluation",
            unit_scale=True,
            desc="expectation",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def done(self, evaluations: int) -> None:
        """Add evaluations that were made."""
        self._bar.update(evaluations)

    def expect(self, left: float) -> None:
        """Say how many are expected from here on."""
        if not self._bar.disable:
            self._bar.total = self._bar.n + round(left)
            self._bar.refresh()
