"""Training of the built-in models from committed recipes.

``python -m dit_tools.training recipes/emoji64.toml`` runs every stage of a recipe in order and
writes a diffusers folder. Each stage saves checkpoints below ``runs/<name>`` and resumes from them.

Furniture: ``recipe`` (the TOML file as dataclasses), ``pictures`` (captioned pictures as arrays),
``autoencoder``, ``tokenizer``, ``text_to_image`` (the stages), ``optimizers``, ``checkpoint``.
"""
