"""Protecting: a picture is changed a little, so that edits of it fail (``dit edit --protect``).

Contract: ``protect(shield) -> change`` (1, 3, H, W), no element beyond ``levels`` / 255, in tensors
of torch. A ``Shield`` has the picture as the model sees it, an ``encode`` that carries gradients, a
denoiser of the prompt, fresh noise, and the mask that an editor may use. With ``levels`` 0 the
change is zero. Such protection holds for models that share the autoencoder, and much of it is lost
by scaling, blurring or strong compression.

Furniture: ``_base`` (``Protecting``, ``Shield``, ``ascended``).
"""
