"""No guidance: the conditional prediction alone."""

from __future__ import annotations

from dit_tools.core.registry import method
from dit_tools.core.run import RunState
from dit_tools.methods.guidance import COND, Branch, Guidance, Guide


@method()
class NoGuidance(Guidance):
    """The conditional prediction as it is, one network call a step."""

    @property
    def branches(self) -> tuple[Branch, ...]:
        """Only the condition."""
        return (COND,)

    def begin(self, run: RunState) -> Guide:
        """A guide without state."""

        def guide(x, t):
            (cond,) = yield (COND,)
            return cond

        return guide
