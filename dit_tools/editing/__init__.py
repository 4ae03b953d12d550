"""Editing: change what is asked of a picture, and keep the rest (``dit edit --method``).

Contract: ``edit(scene) -> latents``: the edited clean latents (1, C, h, w). A ``Scene`` has the
picture's latents ``x0``, the ``mask`` at their size (1 = change, None = everywhere), the ``times``
of the run, a noise ``stream``, and ``ask("source" | "target", scale=...)``, which gives a denoiser
of that prompt. A method whose parameters change nothing returns ``scene.x0`` itself; the picture's
own pixels are written then.

Example::

    @method(paper="...", title="...", year=2023)
    class Mine(Editing):
        strength: float = param(0.6, "share of the run", ge=0, le=1)

        def edit(self, scene): ...

Furniture: ``_base`` (``Editing``, ``Scene``, ``late``); the command's own: ``_run`` (requests and
runs), ``_mask`` (mask files and boxes), ``_compose`` (back into the picture), ``_report``.
"""
