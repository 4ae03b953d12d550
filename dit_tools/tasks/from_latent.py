"""``dit generate --from-latent``: images from a file of ``dit invert``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dit_tools.core import spec
from dit_tools.core.arrays import to_precision
from dit_tools.core.errors import DitError, InputError, ModelError, UsageError
from dit_tools.jobs.events import Listener
from dit_tools.jobs.expand import Job
from dit_tools.jobs.image_outputs import output_format
from dit_tools.jobs.items import Item, Report, Result, Task
from dit_tools.jobs.models import Load, load_model, look_up, open_sampler
from dit_tools.jobs.options import check_prompt, read_values, without_scale
from dit_tools.jobs.outputs import Outputs
from dit_tools.jobs.record import make_record
from dit_tools.jobs.result import GeneratedImage, layers
from dit_tools.jobs.runner import Runner
from dit_tools.jobs.settings import Settings, merge_settings
from dit_tools.media import image
from dit_tools.media.latent_file import Latent, unpack_latent
from dit_tools.sampling.sampler import Sampler
from dit_tools.tasks.invert import as_inverted

DECIDED = (
    "seed",
    "num_images",
    "width",
    "height",
    "steps",
    "schedule",
    "solver",
    "noise",
    "attention",
    "highres",
    "combine",
    "second_model",
    "second_prompt",
)
"""Options that the latent file has decided."""


@dataclass
class Request:
    """What the user asks of a latent file; no prompt means the file's own."""

    latent: str
    prompts: Sequence[str] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    output: str | None = None
    overwrite: bool = False
    skip_existing: bool = False
    metadata: bool = True
    quiet: bool = False


def plan_from_latent(request: Request, listen: Listener, load: Load | None = None) -> Runner:
    """The run of a request, checked before a model is loaded. Raises the DitError of its faults."""
    given = read_values(request.values)
    refuse_decided(given, f"--from-latent {request.latent}")
    latent = unpack_latent(request.latent)
    prompts = list(request.prompts) or [latent.record["prompt"]]
    for prompt in prompts:
        check_prompt(prompt, "--prompt")
    settings = settings_of(latent, given)
    try:
        known = look_up(settings)
    except ModelError as error:
        raise ModelError(f"{request.latent}: {error.message}", error.hint) from None
    check_revision(request.latent, latent, known.revision, known.name)
    plan = settings.check(known.defaults, known.guidance, by="--from-latent")
    spec.parse("inversion", latent.record["inversion"]).compose(plan)
    outputs = Outputs(request.output, "{prompt}", request.overwrite, request.skip_existing)
    outputs.single(len(prompts))
    kind = output_format(request.output, settings.format)
    identity = {
        **settings.pixel_options(),
        "command": "generate --from-latent",
        "model": known.name,
        "revision": known.revision,
        "format": kind,
    }
    items = [
        Item(
            index,
            request.latent,
            (prompt, kind),
            image.suffix(kind),
            {"prompt": prompt, "index": index + 1},
            {**identity, "prompt": prompt},
            (request.latent,),
            {"source": request.latent},
        )
        for index, prompt in enumerate(prompts)
    ]
    return Runner(items, FromLatent(request, latent, given, load), outputs, listen, quiet=request.quiet)


def refuse_decided(given: Mapping[str, Any], by: str) -> None:
    """Raise UsageError for an option that a latent file has decided."""
    for name in DECIDED:
        if name in given:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: {by} has decided that", "leave it out")


def check_revision(path: str, latent: Latent, revision: str, name: str) -> None:
    """Raise ModelError for a file of another model, before one is loaded."""
    recorded = latent.record["model_revision"]
    if revision and recorded != revision:
        raise ModelError(
            f"{path}: made with revision {recorded[:40]} of {latent.record['model'][:60]}, here is "
            f"{revision} of {name}",
            "give that model with -m",
        )


def settings_of(latent: Latent, given: Mapping[str, Any], own_prompt: bool = True) -> Settings:
    """The file's settings, then the user's. A new prompt gets the model's own guidance, unless the
    inversion is made for one.
    """
    record = latent.record
    own_prompt = own_prompt or spec.parse("inversion", record["inversion"]).guided
    names = [
        "model",
        "negative_prompt",
        "width",
        "height",
        "steps",
        "embedded_guidance",
        "max_tokens",
        "backend",
        "schedule",
        "attention",
        "highres",
    ]
    base = {name: record[name] for name in names if record.get(name) is not None}
    if own_prompt and "guidance" not in given and "cfg_scale" not in given:
        base["guidance"] = record["guidance"]
    if "model" in given or "device" in given or "dtype" in given:
        base.pop("backend", None)
    try:
        return merge_settings([read_values(base), given])
    except DitError as error:
        if error.hint and "latent" not in error.message:
            raise InputError(f"latent file: {error.message}", error.hint) from None
        raise


@dataclass
class FromLatent(Task):
    """Makes the image of a latent file again, or another one by another prompt."""

    request: Request
    latent: Latent
    given: Mapping[str, Any]
    load: Load | None
    model: Any = None
    command = "generate"
    unsent = ("model",)

    def make(self, items: Sequence[Item], report: Report) -> list[Result]:
        """See ``Task``."""
        return [self._one(item.source, *item.data) for item in items]

    def _one(self, source: str, prompt: str, kind: str) -> Result:
        began, record = time.perf_counter(), self.latent.record
        own = prompt == record["prompt"]
        settings = settings_of(self.latent, self.given, own)
        if self.model is None:
            self.model = load_model(settings, load=self.load)
        session = open_sampler(self.model, settings)
        chosen = spec.parse("inversion", record["inversion"])
        try:
            found = as_inverted(session, self.latent)
        except ModelError as error:
            raise ModelError(f"{source}: {error.message}", error.hint) from None
        prompts = [prompt] if own or chosen.rows == 1 else [record["prompt"], prompt]
        x = session.reconstruct(chosen, found, self.latent.times, prompts)
        pixels = session.model.codec.decode(to_precision(x, "float32"))[0]
        drawn = GeneratedImage(
            Job(0, prompt, int(record.get("seed") or 0), settings),
            pixels,
            session.plan,
            *session.size,
            time.perf_counter() - began,
        )
        made = _record(drawn, session, record)
        content = image.encode(
            layers(drawn, session.model.alpha),
            kind,
            quality=settings.quality,
            record=made if self.request.metadata else None,
        )
        facts = {
            "prompt": prompt,
            "calls": session.calls,
            "seconds": round(drawn.seconds, 3),
            "width": drawn.width,
            "height": drawn.height,
            "record": made,
        }
        return Result(content, facts)


def _record(drawn: GeneratedImage, session: Sampler, record: Mapping[str, Any]) -> dict[str, Any]:
    """The image's record; ``dit replay`` refuses it, for the latents are not in it."""
    extra = {
        "command": "generate --from-latent",
        "inversion": record["inversion"],
        "source": record.get("source"),
        "source_prompt": record["prompt"],
        "solver": None,
    }
    made = make_record(drawn, session.model, extra)
    if isinstance(made.get("guidance"), str) and "cfg_scale" in made:
        made["guidance"] = without_scale(made["guidance"])
    return made
