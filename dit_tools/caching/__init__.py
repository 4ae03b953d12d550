"""Caching: skip network blocks whose outputs can be forecast (``--cache``).

Contract: ``attach(blocks, run) -> context manager``. Inside it the network computes less.
``blocks`` is the flat list that ``models.blocks`` makes; ``run`` tells which call this is
(``run.call``, ``run.t``), which branches it is for (``run.branches``), and takes counts
(``run.count["blocks computed"]``, ``run.count["blocks skipped"]``). State is born in ``attach``,
keyed by ``run.branches``, and dies with it. At its identity parameters a cache is bit-equal to
none.

A method for a whole stack of blocks is a policy (when to skip) and a forecast (what to put there)::

    @method(paper="arXiv:2503.06923", needs={"stack"}, identity={"interval": 1})
    class TaylorSeer(Cache):
        \"\"\"...\"\"\"
        interval: int = param(5, "full computation every N calls; 1 = exact", ge=1)

        def attach(self, blocks, run):
            def begin():
                return Stream(Interval(self.interval), Forecast(order=1))
            return attach(blocks, run, 3, begin, self.info.name)

``needs={"stack"}``: block 1 and the last block are enough, as networks in PyTorch and graphs in
pieces have them; with ``needs={"blocks"}`` every block is a module of PyTorch. A class whose
parameters decide overrides ``needs``. A cache of whole network calls, which needs no blocks, wraps
the network in ``around(network, run)`` instead (``output``).

``PRESETS`` are words for specs, for users who want no parameters.

Furniture: ``_base.Cache``; ``_policy`` (``Interval``, ``Listed``, ``Gate``); ``_forecast``
(``Forecast``, array arithmetic on numpy and torch); ``_stack`` (hooks, branches, warm-up, last
step, counters).
"""

PRESETS = {
    "slow": "taylorseer:interval=2",
    "medium": "taylorseer:interval=3",
    "fast": "taylorseer:interval=4",
    "ultra": "taylorseer:interval=6",
}
"""``--cache fast`` and the like: how many calls are skipped; what that costs differs by model."""
