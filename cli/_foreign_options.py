"""Options that users of other programs type, and what they are called here.

Sources: the help of mflux 0.10, stable-diffusion.cpp, A1111's API and its command line, and the
parameters of diffusers' pipelines and scripts.
"""

from __future__ import annotations

CFG, IMAGE = "use --cfg-scale", "give the image to 'dit edit IMAGE PROMPT'"
NUMBER, STRENGTH = "use --num-images", "use 'dit edit IMAGE PROMPT --strength'"
MASK, LATER = "use 'dit edit IMAGE PROMPT --mask'", "dit has no such feature"
MEMORY, NONE = "use --offload model", "leave it out: it is not needed"
OPTIONS = {
    # diffusers
    "guidance": CFG,
    "guidance-scale": CFG,
    "true-cfg-scale": CFG,
    "num-inference-steps": "use --steps",
    "inference-steps": "use --steps",
    "num-images-per-prompt": NUMBER,
    "num-outputs": NUMBER,
    "pretrained-model-name-or-path": "use --model",
    "torch-dtype": "use --dtype",
    "precision": "use --dtype",
    "max-sequence-length": "use --max-tokens",
    "generator": "use --seed",
    "image": IMAGE,
    "mask-image": MASK,
    "negative": "use --negative-prompt",
    "enable-model-cpu-offload": MEMORY,
    "enable-vae-tiling": "use --vae-tiling",
    "enable-vae-slicing": "use --vae-slicing",
    "output-dir": "use --output",
    "lora-weights": "use --lora FILE:SCALE",
    # mflux
    "prompt": 'give the prompt as an argument: dit generate "a red apple"',
    "image-path": IMAGE,
    "init-image-path": IMAGE,
    "image-strength": STRENGTH,
    "init-image-strength": STRENGTH,
    "lora-paths": "use --lora FILE:SCALE",
    "lora-scales": "use --lora FILE:SCALE",
    "base-model": "use --base",
    "path": "use --model",
    "metadata": NONE,
    "config-from-metadata": "use --from-image",
    "auto-seeds": "use --seed -1",
    "quantize": "use 'dit quantize' once, then --model",
    "low-ram": MEMORY,
    "stepwise-image-output-dir": "use --save-steps",
    "controlnet-image-path": LATER,
    "mlx-cache-limit": NONE,
    # stable-diffusion.cpp
    "sampling-method": "use --solver",
    "method": "use --solver",
    "scheduler": "use --schedule",
    "diffusion-model": "use --model",
    "batch-count": NUMBER,
    "init-img": IMAGE,
    "img-cfg-scale": CFG,
    "type": "use --dtype",
    "lora-model-dir": "use --lora FILE:SCALE",
    "vae": "use --base",
    "clip-skip": LATER,
    "control-net": LATER,
    "upscale-model": LATER,
    "rng": "use --noise",
    "threads": "set OMP_NUM_THREADS",
    "vae-on-cpu": MEMORY,
    "diffusion-fa": NONE,
    # A1111 and its kin
    "cfg": CFG,
    "sampler": "use --solver",
    "sampler-name": "use --solver",
    "sampler-index": "use --solver",
    "scale": CFG,
    "n-iter": NUMBER,
    "n-samples": NUMBER,
    "count": NUMBER,
    "num": NUMBER,
    "ddim-steps": "use --steps --solver ddim",
    "denoising-strength": STRENGTH,
    "denoise": STRENGTH,
    "init-images": IMAGE,
    "inpaint": MASK,
    "enable-hr": "use --highres diffusehigh",
    "hires-fix": "use --highres diffusehigh",
    "hr-scale": "use --highres diffusehigh and --size",
    "styles": "use --preset",
    "ckpt": "use --model",
    "checkpoint": "use --model",
    "outdir": "use --output",
    "outfile": "use --output",
    "xformers": NONE,
    "medvram": MEMORY,
    "lowvram": "use --offload group",
    "no-half": "use --dtype float32",
    "fp16": "use --dtype float16",
    "bf16": "use --dtype bfloat16",
    "half": "use --dtype float16",
    "gpu": "use --device cuda",
    "cpu": "use --device cpu",
    "verbose": "use --debug",
}
"""Name without dashes, in lower case, words joined by ``-`` -> what to do instead."""


def remedy(option: str) -> str | None:
    """What to type instead of another program's option; None: it is of none of them."""
    return OPTIONS.get(option.partition("=")[0].lstrip("-").lower().replace("_", "-"))
