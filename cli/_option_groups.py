"""Blocks of options that several commands take.

``command(function, Images)`` gives the function every option of that block in its ``**`` keyword
parameter. None, or False for a switch, means that the user said nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from dit_cli import _method_options
from dit_cli import _options as o


class RunOptions(TypedDict):
    """Options of a command that samples a model, and of its output."""

    negative_prompt: o.NegativePrompt
    seed: o.Seed
    size: o.Size
    steps: o.Steps
    cfg_scale: o.CfgScale
    embedded_guidance: o.EmbeddedGuidance
    max_tokens: o.MaxTokens
    model: o.Model
    lora: o.Lora
    schedule: _method_options.Schedule
    guidance: _method_options.Guidance
    cache: _method_options.Cache
    calibration: o.Calibration
    attention: _method_options.Attention
    tokens: _method_options.Tokens
    highres: _method_options.HighRes
    device: o.Device
    dtype: o.Dtype
    backend: o.Backend
    output: o.Output
    overwrite: o.Overwrite
    skip_existing: o.SkipExisting
    json: o.Json
    quiet: o.Quiet


class ImageOptions(RunOptions):
    """A run that writes images."""

    num_images: o.NumImages
    solver: _method_options.Solver
    noise: _method_options.Noise
    format: o.Format
    quality: o.Quality
    no_metadata: o.NoMetadata


def values(given: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """The options of an image and its run that the user gave, for ``read_values``."""
    from dit_tools.jobs.options import OPTIONS

    both = {**given, **more}
    scale = both.get("cfg_scale")
    if scale is not None and str(scale).strip(" 0.") == "" and not both.get("quiet"):
        from dit_cli import _output

        _output.say("dit: --cfg-scale 0: scale 0 ignores the prompt; 1 means no guidance")
    return {name: both[name] for name in OPTIONS if both.get(name) not in (None, (), [])}
