"""Where an edit by inversion comes from: a method, a file of ``dit invert``, or another model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dit_tools.core import spec
from dit_tools.core.errors import InputError, UnsupportedError, UsageError
from dit_tools.jobs.models import KnownModel, Load, load_model, open_sampler
from dit_tools.jobs.settings import Settings, merge_settings
from dit_tools.media.image import Picture
from dit_tools.media.latent_file import LATENT_SUFFIX, Latent, unpack_latent
from dit_tools.methods.inversion import Inversion
from dit_tools.sampling.sampler import Sampler
from dit_tools.tasks.from_latent import check_revision, refuse_decided, settings_of
from dit_tools.tasks.invert import digest

DEFAULT, CYCLE = "ddim", "dpm-encoder"


@dataclass(frozen=True)
class Source:
    """``--inversion`` and ``--source-model`` of a request, read.

    ``file`` and ``latent`` are those of a latent file.
    """

    inversion: Inversion
    file: str = ""
    latent: Latent | None = None
    model: str | None = None

    @property
    def asked(self) -> bool:
        """Whether only editing by inversion can answer."""
        return self.latent is not None or self.model is not None


def read_source(inversion: str | None, model: str | None) -> Source:
    """The source of a request. Raises UsageError or the InputError of a file."""
    if inversion is None or not is_file(inversion):
        chosen = spec.parse("inversion", inversion or (CYCLE if model else DEFAULT))
        return Source(chosen, model=model)
    if model is not None:
        raise UsageError(f"--source-model: {inversion} is inverted already", "leave it out")
    latent = unpack_latent(inversion)
    return Source(spec.parse("inversion", latent.record["inversion"]), inversion, latent)


def is_file(text: str) -> bool:
    """Whether ``--inversion`` names a latent file."""
    return text.endswith(LATENT_SUFFIX)


def source_settings(source: Source, given: Mapping[str, Any]) -> Settings:
    """The settings of a run: the user's, over those that the file has decided."""
    if source.latent is None:
        return merge_settings([given])
    refuse_decided(given, f"--inversion {source.file}")
    return settings_of(source.latent, given, own_prompt=False)


def check_model(source: Source, known: KnownModel) -> None:
    """Raise ModelError for a file of another model."""
    if source.latent is not None:
        check_revision(source.file, source.latent, known.revision, known.name)


def prompt(source: Source, given: str) -> str:
    """The source prompt: the file's own. Raises UsageError for another one."""
    if source.latent is None:
        return given
    own = source.latent.record["prompt"]
    if given and given != own:
        raise UsageError(f"--source-prompt: {source.file} was inverted with {own[:60]!r}", "leave it out")
    return own


def check_image(source: Source, session: Sampler, picture: Picture, path: str) -> None:
    """Raise InputError when the file was made from another image."""
    if source.latent is None:
        return
    record = source.latent.record
    known = record.get("source_digest")
    if known is not None and known != digest(session, picture):
        raise InputError(f"{source.file}: made from another image than {path}", f"invert {path} first")


def origin_latents(source: Source, session: Sampler, settings: Settings, load: Load | None) -> Sampler | None:
    """A sampler of ``--source-model`` that counts its calls in the target's.

    Raises UnsupportedError where the two models do not share their latents.
    """
    if source.model is None:
        return None
    asked = replace(settings, model=source.model, lora=())
    made = open_sampler(load_model(asked, source.inversion.info.needs, load), asked)
    one, two = made.model, session.model
    if made.shape != session.shape or one.path != two.path or one.backend != two.backend:
        raise UnsupportedError(
            f"--source-model {one.name}: its latents {tuple(made.shape)} on {one.path} "
            f"({one.backend}) are not those of {two.name}: {tuple(session.shape)} on {two.path} "
            f"({two.backend})",
            "choose two models of one autoencoder, schedule and backend",
        )
    made.state = session.state
    return made
