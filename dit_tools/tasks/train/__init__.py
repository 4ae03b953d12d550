"""Training from recipes: models, small siblings of models, and adapters.

``run.run`` takes a recipe through its stages and writes a diffusers folder, or the file of an
adapter. Each stage saves checkpoints in the folder of the run and resumes from them to the bit.

Furniture: ``recipe`` (the TOML file as dataclasses), ``pictures`` and ``folders`` (captioned
pictures as arrays), ``autoencoder``, ``tokenizer``, ``text_to_image`` (the stages), ``sibling``,
``adapting``, ``terms`` (objectives together), ``team`` (several processes), ``session``,
``optimizers``, ``checkpoint``, ``latents``, ``card``, ``plot``.
"""
