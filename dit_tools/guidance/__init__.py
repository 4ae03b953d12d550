"""Guidance: how conditional and other predictions become one (``--guidance``).

Contract: ``begin() -> guide``, a fresh function for every run, so that state (momentum, counters)
never leaks; ``guide(evaluate, x, t) -> Prediction``. ``evaluate(COND, UNCOND)`` asks for the
branches it needs, all at once, and gets their Predictions in that order; the denoiser decides
about batching. A branch may perturb the network: ``Branch("pag", "cond", perturb)``, where
``perturb(blocks)`` is a context manager; such a method has ``needs={"blocks"}``.
A method that looks at pictures (``sees``) asks ``self.critic()`` in ``begin``: the run has bound
one with ``watched(critic)``, which scores clean latents against the prompts of its rows.

Example::

    @method(paper="arXiv:2207.12598", title="...", year=2022)
    class Cfg(Guidance):
        \"\"\"...\"\"\"
        scale: float = param(4.0, "1 = the conditional prediction alone", ge=0)

        def begin(self):
            def guide(evaluate, x, t):
                cond, uncond = evaluate(COND, UNCOND)
                return cond.with_raw(uncond.raw + self.scale * (cond.raw - uncond.raw))
            return guide

Furniture: ``_base`` (``Guidance``, ``Branch``, ``COND``, ``UNCOND``, ``Critic``), ``_norms``.
"""
