"""The library side of ``dit invert`` and of ``dit generate --from-latent``.

    from dit_tools.inverting.invert import Request, assemble

    outcome = assemble(Request(["photo.png"], "a red apple", output="apple.latent"), print).start()

Furniture: ``frame`` (a picture of any size at the model's size, and back), ``session`` (a model
that is asked with several prompts over one schedule), ``files`` (many inputs, one output each),
``invert`` and ``comeback`` (the two commands). ``dit edit`` uses the first three as well.
"""
