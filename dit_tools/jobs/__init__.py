"""Many items in one run: names, seeds, prompt files, whole outputs, resuming, stopping.

Contract: a run over many items either gives a whole output for an item or none; it can be stopped
at any moment and started again, and then does only what is missing. Nothing here knows pictures or
models. ``prompts``, ``seeds`` and ``names`` import neither numpy nor Pillow, so that a typing error
costs no start-up time. All errors are ``dit_tools.core.errors``; only ``interrupt.Terminated`` and
KeyboardInterrupt pass them by.

    items = read_prompts("cats.jsonl", options={"cfg-scale"})
    names = Names(destination(output, "{prompt}-{seed}"))
    manifest = Manifest("out")
    with Interruptible() as signals, bar(len(items), "pictures") as progress:
        for index, item in enumerate(items):
            if signals.stop_requested:
                break
            key = key_of({"prompt": item.prompt, "seed": 1, "model": model_hash})
            if manifest.done(key) is None:
                path = names.claim({"prompt": item.prompt, "seed": 1, "index": index})
                atomic_write(path, picture(item))
                manifest.add(key, path)
            progress.update(1)

Furniture: ``atomic`` (whole or absent files), ``names`` (``-o``, templates, numbering), ``seeds``
(``--seed``), ``prompts`` (``--prompt-file``), ``manifest`` (what is done), ``interrupt`` (Ctrl-C,
SIGTERM), ``progress`` (the bar).
"""
