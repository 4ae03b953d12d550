"""From a request to files: settings, items, runs over many of them, whole outputs, resuming, stopping.

Contract: a run over many items either gives a whole output for an item or none; it can be stopped
at any moment and started again, and then does only what is missing. ``runner`` shows how a
subcommand is built: a ``Task`` plans ``Item``s and makes ``Result``s of them, ``Outputs`` decides
where they go, ``Runner`` does the rest, through an ``Executor``.

What a plan needs: ``options``, ``settings``, ``config``, ``sweep``, ``prompts``, ``seeds``,
``expand`` (``dit generate``: one job is one image), ``inputs`` (files, folders, patterns), ``models``.
What a run needs: ``items``, ``outputs``, ``image_outputs`` (formats), ``names`` (``-o``, templates,
numbering), ``manifest`` (what is done), ``atomic`` (whole or absent files), ``executors``,
``events``, ``interrupt`` (Ctrl-C, SIGTERM), ``progress``, ``record``, ``result``, ``memory``.

``prompts``, ``seeds`` and ``names`` import neither numpy nor Pillow, so that a typing error costs
no start-up time. All errors are ``dit_tools.core.errors``; only ``interrupt.Terminated`` and
KeyboardInterrupt pass them by.
"""
