"""Combine: one sampling run out of two models, or of two prompts (``--combine``).

Contract: ``steps(stage, x) -> Iterator[Step]``. ``stage.experts`` are denoisers, each with its own
network, conditions, guidance and cache: the first is that of ``--model``, the second that of
``--second-model``. ``expert(x, t)`` is a guided prediction, ``expert.ask(branches, x, t)`` gives
single branches; a second prompt for the same model is the branch ``second`` of the first expert.
``takes`` says what of ``model`` and ``prompt`` a method has a use for; without any the option is
refused. A method that steps by itself names the solver whose steps it takes as ``own_solver``.

Both models are asked at the same latents and times, so they must share the autoencoder and the
noise path (``sampling`` checks that); each reads its own prompt encoding and its own output kind.

Example::

    @method(paper="arXiv:2402.14167", ..., identity={"share": 0.0})
    class TStitch(Combine):
        \"\"\"...\"\"\"
        takes = frozenset({"model"})
        share: float = param(0.4, "share of the steps that the second model takes", ge=0, le=1)

        def steps(self, stage, x):
            return stitched(stage, x, int(self.share * stage.total))

Furniture: ``_base`` (``Combine``, ``Stage``, ``Expert``, ``SECOND``), ``_stitch`` (``stitched``).
"""
