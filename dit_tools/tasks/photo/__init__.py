"""Photographs in, photographs out: ``dit superres``, ``dit restore`` and ``dit degrade``.

``superres``, ``restore`` and ``degrade`` hold a request each and ``assemble(request, listen)``,
which checks it and gives a ``Batch``. ``run`` is what they share: names, files, records, sheets and
the comparison with reference images. ``network`` runs a network over a photograph in tiles.
"""
