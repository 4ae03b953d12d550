"""The library side of ``dit generate``, ``dit info`` and ``dit replay``: requests, runs, records.

Contract: a ``Request`` is checked as a whole before anything heavy is imported (``assemble``), and
becomes a ``Run`` over ``Target``s, one per image. A run draws batch after batch, writes each
image as soon as it is there, tells a listener what happens, and gives an ``Outcome``. An image
depends on its own prompt, seed and settings; what it depends on stands in its record.

    from dit_tools.tasks.generate.request import Request, assemble

    request = Request(prompts=["a red apple"], values={"seed": "1..4", "steps": 30}, output="out/")
    run, notes = assemble(request, listen=print)
    outcome = run.start()
    print(outcome.written, outcome.exit_code)

``assemble(..., find=, load=)`` takes stand-ins for the look-up and the loading of models: functions
like ``loading.look_up`` and ``models.load.load``.

Helpers, in the order of a run: ``options`` (one table of options and readers), ``config``
(--config, --preset), ``record`` (the record and --from-image), ``sweep``, ``jobs`` (prompts x sweep
x seeds), ``request`` (settings -> plan), ``outputs`` (names, manifest, checks), ``loading``,
``batches``, ``draw`` (noise to pixels), ``run``, ``extras`` (sheets, videos, preview), ``events``;
``replay`` and ``inspecting`` serve the other two commands.
"""
