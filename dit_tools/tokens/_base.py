"""The verb of the room, and what a run asks of it between the network and the solver."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from dit_tools.core.errors import UsageError
from dit_tools.core.prediction import Prediction
from dit_tools.core.registry import MethodInfo
from dit_tools.core.run import Run


class Watch:
    """What a run with tokens left out asks between the network and the solver."""

    def branch(self, name: str, prediction: Prediction) -> Prediction:
        """The prediction of branch ``name``, made whole."""
        return prediction

    def guided(self, prediction: Prediction) -> Prediction:
        """The guided prediction; a method chooses the next call's tokens here."""
        return prediction


class Tokens(ABC):
    """A rule for choosing the image tokens that the network computes."""

    info: ClassVar[MethodInfo]

    def compose(self, plan: Any) -> None:
        """Raise UsageError when the plan has a method that this one cannot run with.

        A cache forecasts a token from calls that computed it, and here not every call does.
        """
        if plan.cache.info.name != "none":
            both = f"--tokens {self.info.name} and --cache {plan.cache.info.name}"
            reason = "a forecast of a token needs calls that computed it"
            raise UsageError(f"{both}: {reason}", "give one of them")

    @abstractmethod
    def attach(self, blocks: Sequence[Any], run: Run) -> AbstractContextManager[Watch]:
        """Hook the blocks until the context is left; ``blocks`` are ``models.blocks.Block``.

        Raises UnsupportedError when the blocks cannot run on some of their tokens.
        """
