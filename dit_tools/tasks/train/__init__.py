"""Training from recipes: models, small siblings of models, and adapters.

``run.run`` takes a recipe through its stages and writes a diffusers folder, or the file of an
adapter. Each stage saves checkpoints in the folder of the run and resumes from them to the bit.

Modules: ``recipe`` (the TOML file as dataclasses), ``dataset`` and ``image_folder`` (captioned images
as arrays), ``autoencoder``, ``tokenizer`` and ``text_to_image`` (the stages), ``small_variant``,
``train_adapter``, ``losses`` (several objectives at once), ``distributed`` (several processes),
``optimizers``, ``checkpoint``, ``latents``, ``card``, ``plot``.
"""
