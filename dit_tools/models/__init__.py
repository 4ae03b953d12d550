"""Models: one way to load, call and describe every diffusion transformer.

``load.load(reference, ...)`` takes a built-in name, a folder, a safetensors file or a hub id and
returns a ``model.Model``: family (how this transformer class is called), network (torch or ONNX
Runtime behind the same call), codec, text encoder, noise path and defaults.

Modules: ``scheduler`` (facts in a diffusers scheduler config), ``blocks`` (a flat list of blocks to
hook), ``loading.validation`` (checks before a weight file is opened), ``families`` (one file per
family).
"""
