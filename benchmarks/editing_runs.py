"""The runs of ``benchmarks/editing.py``: a method, perhaps an inversion, a second model, a mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

STRENGTHS = (0.3, 0.5, 0.7, 0.85, 1.0)
PLAIN = tuple(f"inversion:strength={s}+inversion=ddim" for s in STRENGTHS)
PLAIN_MASKED = tuple(f"{run}+mask" for run in PLAIN[1:])
RUNS = (
    *PLAIN,
    *PLAIN_MASKED,
    "img2img",
    "img2img:strength=0.4",
    "img2img+mask",
    "flowedit",
    "flowedit:strength=0.7",
    "flowedit+mask",
    "flowedit+detail",
    "inversion:strength=0.5+inversion=ddim+detail",
    "inversion:strength=0.7+inversion=edict",
    "inversion:strength=0.7+inversion=bdia",
    "inversion:strength=0.7+inversion=midpoint",
    "inversion:strength=0.7+inversion=direct",
    "inversion:strength=0.7+inversion=dpm-encoder",
    "inversion:strength=0.7+inversion=dpm-encoder+source-model=emoji-small",
    "flowchef",
    "flowchef+mask",
    "inpaint+mask",
    "cow+mask",
    "text-injection",
    "eim",
    "eim+detail",
    "filterprompt:filter=gray",
    "filterprompt:filter=blur",
    "prompt-to-prompt",
    "prompt-to-prompt:blend=0.3",
    "masactrl",
    "boundary",
    "inversion:strength=0.7+inversion=null-text",
    "sine",
)
LIMITS = {"prompt-to-prompt": 40, "masactrl": 40, "boundary": 40, "null-text": 10, "sine": 10}
"""Part of a run -> cases that are enough for it."""


@dataclass(frozen=True)
class Run:
    """One way to edit: instances of ``editing`` and ``inversion``, whether the mask is given.

    ``detail``: what the autoencoder loses of the image is kept, as by ``--keep-detail``.
    """

    method: Any
    inversion: Any
    masked: bool
    source_model: str = ""
    detail: bool = False

    @classmethod
    def of(cls, text: str) -> Run:
        """Read ``METHOD[+inversion=SPEC][+source-model=NAME][+mask][+detail]``."""
        from dit_tools.core import spec

        name, *more = text.split("+")
        given = {key: value for key, _, value in (part.partition("=") for part in more)}
        method = spec.parse("editing", name)
        inversion = spec.parse("inversion", given.get("inversion", "ddim"))
        return cls(
            method, inversion, "mask" in given or method.needs_mask, given.get("source-model", ""), "detail" in given
        )

    @property
    def needs(self) -> frozenset[str]:
        """What the network must offer."""
        own = self.method.info.needs
        return own | self.inversion.info.needs if self.method.inverts else own
