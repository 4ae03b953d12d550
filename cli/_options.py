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

MODEL, IMAGE, HARDWARE, RUN = "Model", "Image", "Hardware and precision", "Output and run"
METHODS = "Methods (the name 'help' lists them, NAME:help explains one)"
PANELS = (IMAGE, MODEL, METHODS, HARDWARE, RUN)
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
    list[str] | None, typer.Argument(metavar="PROMPT", help="Prompt text; '-' reads prompts from standard input.")
]
Prompt = Annotated[
    str | None,
    _option("-p", "--prompt", metavar="TEXT", help="Prompt that describes the image.", rich_help_panel=IMAGE),
]
ManyPrompts = Annotated[
    list[str] | None,
    _option("-p", "--prompt", metavar="TEXT", help="Prompt text; may be given several times.", rich_help_panel=IMAGE),
]
PromptFile = Annotated[
    list[str] | None,
    _option(
        "--prompt-file",
        metavar="FILE",
        rich_help_panel=IMAGE,
        help="Read prompts from a .txt, .csv or .jsonl file; '-' is standard input.",
    ),
]
NegativePrompt = Annotated[
    str | None,
    _option("-n", "--negative-prompt", metavar="TEXT", rich_help_panel=IMAGE, help="What the image should not show."),
]
Seed = Annotated[
    str | None,
    _option(
        "-s",
        "--seed",
        metavar="SEEDS",
        rich_help_panel=IMAGE,
        help="Seeds: 42, 1,2,3, 10..20, or -1 for a random seed (default: 0).",
    ),
]
NumImages = Annotated[
    str | None,
    _option(
        "-N",
        "--num-images",
        metavar="N",
        rich_help_panel=IMAGE,
        help="Images per prompt, with consecutive seeds (default: 1).",
    ),
]
Size = Annotated[
    str | None,
    _option(
        "--size",
        metavar="WxH",
        help="Width and height in pixels (default: the model's own size).",
        rich_help_panel=IMAGE,
    ),
]
Width = Annotated[
    str | None, _option("-W", "--width", metavar="PIXELS", help="Width in pixels.", rich_help_panel=IMAGE)
]
Height = Annotated[
    str | None, _option("-H", "--height", metavar="PIXELS", help="Height in pixels.", rich_help_panel=IMAGE)
]
Steps = Annotated[
    str | None,
    _option(
        "--steps",
        "--num-inference-steps",
        metavar="N",
        rich_help_panel=IMAGE,
        help="Number of sampling steps (default: the model's own).",
    ),
]
CfgScale = Annotated[
    str | None,
    _option(
        "--cfg-scale",
        "--guidance-scale",
        metavar="X",
        rich_help_panel=IMAGE,
        help="Guidance scale; 1 turns guidance off (default: the model's own; 1 for 'dit invert').",
    ),
]
EmbeddedGuidance = Annotated[
    str | None,
    _option(
        "--embedded-guidance",
        metavar="X",
        rich_help_panel=IMAGE,
        help="Guidance value that a guidance-distilled model takes as an input.",
    ),
]
MaxTokens = Annotated[
    str | None,
    _option(
        "--max-tokens",
        metavar="N",
        help="Maximum number of prompt tokens to encode (default: the model's own).",
        rich_help_panel=IMAGE,
    ),
]
Transparent = Annotated[
    bool | None,
    _option(
        "--transparent",
        help="Keep the background transparent; the model must have an alpha channel.",
        rich_help_panel=IMAGE,
    ),
]
Background = Annotated[
    str | None,
    _option(
        "--background",
        metavar="COLOUR",
        rich_help_panel=IMAGE,
        help="Composite the image over this colour; the model must have an alpha channel.",
    ),
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
        help="Built-in name, folder, .safetensors or .gguf file, or hub id (default: emoji).",
    ),
]
Lora = Annotated[
    list[str] | None,
    _option(
        "--lora",
        metavar="FILE[:SCALE]",
        rich_help_panel=MODEL,
        help="Add a LoRA or another adapter; may be given several times (default scale: 1).",
    ),
]
AllowPickle = Annotated[
    bool | None,
    _option(
        "--allow-pickle",
        help="Accept weights in pickle files, which may run code; use it for trusted sources only.",
        rich_help_panel=MODEL,
    ),
]

# hardware -----------------------------------------------------------------------------------------

Device = Annotated[
    str | None,
    _option(
        "--device",
        metavar="NAME",
        rich_help_panel=HARDWARE,
        help="Device: auto, cpu, cuda, cuda:1, mps or tensorrt (default: auto).",
        autocompletion=_words("auto", "cpu", "cuda", "mps", "tensorrt"),
    ),
]
Dtype = Annotated[
    str | None,
    _option(
        "--dtype",
        metavar="NAME",
        rich_help_panel=HARDWARE,
        help="Precision: auto, float32, float16, bfloat16 or int8 (default: auto).",
        autocompletion=_words("auto", "float32", "float16", "bfloat16", "int8"),
    ),
]
Backend = Annotated[
    str | None,
    _option(
        "--backend",
        metavar="NAME",
        rich_help_panel=HARDWARE,
        help="Backend: auto, torch or onnx (default: auto).",
        autocompletion=_words("auto", "torch", "onnx"),
    ),
]
BatchSize = Annotated[
    int | None,
    _option("--batch-size", metavar="N", min=1, rich_help_panel=HARDWARE, help="Images per network call (default: 1)."),
]
Offload = Annotated[
    str | None,
    _option(
        "--offload",
        metavar="HOW",
        rich_help_panel=HARDWARE,
        help="Keep weights in main memory until they are needed: model, group or none (default: none).",
        autocompletion=_words("model", "group", "none"),
    ),
]
VaeTiling = Annotated[
    bool | None,
    _option("--vae-tiling", help="Decode each image in tiles, which needs less memory.", rich_help_panel=HARDWARE),
]
VaeSlicing = Annotated[
    bool | None,
    _option(
        "--vae-slicing",
        help="Decode the images of a batch one by one, which needs less memory.",
        rich_help_panel=HARDWARE,
    ),
]

# files and the run --------------------------------------------------------------------------------

Output = Annotated[
    str | None,
    _option(
        "-o",
        "--output",
        metavar="PATH",
        rich_help_panel=RUN,
        help="Output file, folder/, template such as {seed}.png, or '-' for standard output.",
    ),
]
Format = Annotated[
    str | None,
    _option(
        "--format",
        metavar="NAME",
        rich_help_panel=RUN,
        help="Image format: png, jpeg, webp, tiff or avif (default: by the file name).",
        autocompletion=_words("png", "jpeg", "webp", "tiff", "avif"),
    ),
]
Quality = Annotated[
    str | None,
    _option(
        "--quality",
        metavar="1..100",
        rich_help_panel=RUN,
        help="Quality for JPEG, WebP and AVIF; 100 means lossless for WebP (default: 95, 90 and 85).",
    ),
]
Overwrite = Annotated[bool, _option("--overwrite", help="Replace existing files.", rich_help_panel=RUN)]
SkipExisting = Annotated[
    bool, _option("--skip-existing", help="Skip items whose output file exists.", rich_help_panel=RUN)
]
NoMetadata = Annotated[
    bool, _option("--no-metadata", help="Do not embed the record of how the image was made.", rich_help_panel=RUN)
]
Config = Annotated[
    str | None, _option("--config", metavar="FILE", help="Read options from a TOML file.", rich_help_panel=RUN)
]
Preset = Annotated[
    str | None, _option("--preset", metavar="NAME", help="Apply a named set of options.", rich_help_panel=RUN)
]
FromImage = Annotated[
    str | None,
    _option(
        "--from-image", metavar="FILE", rich_help_panel=RUN, help="Take options from the record embedded in an image."
    ),
]
DryRun = Annotated[
    bool, _option("--dry-run", help="Check the request and show the plan without running it.", rich_help_panel=RUN)
]
Json = Annotated[
    bool, _option("--json", help="Print one JSON object per line on standard output.", rich_help_panel=RUN)
]
Quiet = Annotated[bool, _option("-q", "--quiet", help="Print errors only, no progress.", rich_help_panel=RUN)]
Verbose = Annotated[
    int, _option("-v", "--verbose", count=True, show_default=False, help="Print more detail.", rich_help_panel=RUN)
]
Calibration = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        rich_help_panel=METHODS,
        help="Calibration file for --cache, written by 'dit calibrate' (default: looked up by model).",
    ),
]
