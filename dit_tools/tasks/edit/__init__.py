"""Editing: images and a request in, edited images out; the method does the rest.

``task`` plans the items of ``dit edit``, ``region`` and ``mask`` say where to edit, ``inversion_source``
what to start from, ``run_edit`` runs a method on latents, ``paste_back`` puts the result into the
original image, and ``report`` measures what changed.
"""
