"""Every option that commands share, once: name, short form, help and completion.

Use them as annotations: ``def generate(model: Model = None, steps: Steps = None)``, or by the
block (``dit_cli._option_groups``). The names of the function's parameters are those of
``dit_tools.jobs.options.OPTIONS``, so that a dictionary of them goes through ``read_values``
as it is. Values stay text where a reader there converts them: the command line, prompt files,
presets and records then say the same about a bad one. An option means the same in every command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

MODEL, PICTURE, PLACE, RUN = "Model", "Picture", "Hardware and precision", "Output and run"
METHODS = "Methods ('help' as a name lists them, NAME:help explains one)"
PANELS = (PICTURE, MODEL, METHODS, PLACE, RUN)
"""The order of headings in help."""


def _option(*names: str, **facts: Any) -> Any:
    return typer.Option(*names, **facts)


def _words(*words: str) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def _models(incomplete: str) -> list[str]:
    from dit_tools.models.loading.resolve import builtin_names

    return [name for name in builtin_names() if name.startswith(incomplete)]


# what to make -------------------------------------------------------------------------------------

Prompts = Annotated[
    list[str] | None, typer.Argument(metavar="PROMPT", help="What to show; - reads prompts from stdin.")
]
Prompt = Annotated[
    str | None, _option("-p", "--prompt", metavar="TEXT", help="What the pictures show.", rich_help_panel=PICTURE)
]
ManyPrompts = Annotated[
    list[str] | None,
    _option("-p", "--prompt", metavar="TEXT", help="A prompt; may be repeated.", rich_help_panel=PICTURE),
]
PromptFile = Annotated[
    list[str] | None,
    _option(
        "--prompt-file", metavar="FILE", rich_help_panel=PICTURE, help="Prompts from .txt, .csv or .jsonl; - is stdin."
    ),
]
NegativePrompt = Annotated[
    str | None, _option("-n", "--negative-prompt", metavar="TEXT", rich_help_panel=PICTURE, help="What not to show.")
]
Seed = Annotated[
    str | None,
    _option(
        "-s",
        "--seed",
        metavar="SEEDS",
        rich_help_panel=PICTURE,
        help="42, 1,2,3, 10..20, or -1 for a random one; 0 if not given.",
    ),
]
NumImages = Annotated[
    str | None,
    _option("-N", "--num-images", metavar="N", rich_help_panel=PICTURE, help="Pictures per prompt; seeds count up."),
]
Size = Annotated[
    str | None, _option("--size", metavar="WxH", help="Width and height, pixels.", rich_help_panel=PICTURE)
]
Width = Annotated[str | None, _option("-W", "--width", metavar="PIXELS", help="Width.", rich_help_panel=PICTURE)]
Height = Annotated[str | None, _option("-H", "--height", metavar="PIXELS", help="Height.", rich_help_panel=PICTURE)]
Steps = Annotated[
    str | None,
    _option("--steps", "--num-inference-steps", metavar="N", rich_help_panel=PICTURE, help="Sampling steps."),
]
CfgScale = Annotated[
    str | None,
    _option(
        "--cfg-scale",
        "--guidance-scale",
        metavar="X",
        rich_help_panel=PICTURE,
        help="Strength of classifier-free guidance; 1 is none.",
    ),
]
EmbeddedGuidance = Annotated[
    str | None,
    _option(
        "--embedded-guidance",
        metavar="X",
        rich_help_panel=PICTURE,
        help="Guidance that a distilled model takes as input.",
    ),
]
MaxTokens = Annotated[
    str | None, _option("--max-tokens", metavar="N", help="Length of the encoded prompt.", rich_help_panel=PICTURE)
]
Transparent = Annotated[
    bool | None, _option("--transparent", help="Keep the background transparent.", rich_help_panel=PICTURE)
]
Background = Annotated[
    str | None,
    _option("--background", metavar="COLOUR", rich_help_panel=PICTURE, help="Put the picture on this colour."),
]

# the model ----------------------------------------------------------------------------------------

Model = Annotated[
    str | None,
    _option(
        "-m",
        "--model",
        metavar="MODEL",
        rich_help_panel=MODEL,
        autocompletion=_models,
        help="Built-in name, folder, safetensors file or hub id.",
    ),
]
Lora = Annotated[
    list[str] | None,
    _option("--lora", metavar="FILE[:SCALE]", rich_help_panel=MODEL, help="Add a LoRA; may be repeated."),
]
AllowPickle = Annotated[
    bool | None, _option("--allow-pickle", help="Accept weights in pickle files.", rich_help_panel=MODEL)
]

# hardware -----------------------------------------------------------------------------------------

Device = Annotated[
    str | None,
    _option(
        "--device",
        metavar="NAME",
        rich_help_panel=PLACE,
        help="auto, cpu, cuda, cuda:1, mps, tensorrt.",
        autocompletion=_words("auto", "cpu", "cuda", "mps", "tensorrt"),
    ),
]
Dtype = Annotated[
    str | None,
    _option(
        "--dtype",
        metavar="NAME",
        rich_help_panel=PLACE,
        help="auto, float32, float16, bfloat16 or int8.",
        autocompletion=_words("auto", "float32", "float16", "bfloat16", "int8"),
    ),
]
Backend = Annotated[
    str | None,
    _option(
        "--backend",
        metavar="NAME",
        rich_help_panel=PLACE,
        help="auto, torch or onnx.",
        autocompletion=_words("auto", "torch", "onnx"),
    ),
]
BatchSize = Annotated[
    int | None, _option("--batch-size", metavar="N", min=1, rich_help_panel=PLACE, help="Pictures per network call.")
]
Offload = Annotated[
    str | None,
    _option(
        "--offload",
        metavar="HOW",
        rich_help_panel=PLACE,
        help="Keep weights in main memory: model, group or none.",
        autocompletion=_words("model", "group", "none"),
    ),
]
VaeTiling = Annotated[bool | None, _option("--vae-tiling", help="Decode in tiles: less memory.", rich_help_panel=PLACE)]
VaeSlicing = Annotated[
    bool | None, _option("--vae-slicing", help="Decode one by one: less memory.", rich_help_panel=PLACE)
]

# files and the run --------------------------------------------------------------------------------

Output = Annotated[
    str | None,
    _option(
        "-o",
        "--output",
        metavar="PATH",
        rich_help_panel=RUN,
        help="File, folder/, template with {seed}, or - for stdout.",
    ),
]
Format = Annotated[
    str | None,
    _option(
        "--format",
        metavar="NAME",
        rich_help_panel=RUN,
        help="png, jpeg, webp, tiff or avif; else by the suffix.",
        autocompletion=_words("png", "jpeg", "webp", "tiff", "avif"),
    ),
]
Quality = Annotated[
    str | None,
    _option("--quality", metavar="1..100", rich_help_panel=RUN, help="Of jpeg, webp and avif; 100 is lossless webp."),
]
Overwrite = Annotated[bool, _option("--overwrite", help="Replace files that exist.", rich_help_panel=RUN)]
SkipExisting = Annotated[bool, _option("--skip-existing", help="Leave out files that exist.", rich_help_panel=RUN)]
NoMetadata = Annotated[bool, _option("--no-metadata", help="Embed no record.", rich_help_panel=RUN)]
Config = Annotated[str | None, _option("--config", metavar="FILE", help="TOML with options.", rich_help_panel=RUN)]
Preset = Annotated[str | None, _option("--preset", metavar="NAME", help="A named set of options.", rich_help_panel=RUN)]
FromImage = Annotated[
    str | None,
    _option("--from-image", metavar="FILE", rich_help_panel=RUN, help="Take options from a picture's record."),
]
DryRun = Annotated[bool, _option("--dry-run", help="Check and show the plan, make nothing.", rich_help_panel=RUN)]
Json = Annotated[bool, _option("--json", help="One JSON object a line on stdout.", rich_help_panel=RUN)]
Quiet = Annotated[bool, _option("-q", "--quiet", help="No progress, errors only.", rich_help_panel=RUN)]
Verbose = Annotated[
    int, _option("-v", "--verbose", count=True, show_default=False, help="Say more.", rich_help_panel=RUN)
]
