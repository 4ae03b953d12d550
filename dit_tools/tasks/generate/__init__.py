"""``dit generate``: requests, batches, contact sheets and comparisons.

``request.plan_generation`` checks a ``Request`` as a whole before anything heavy is imported and
returns a ``jobs.runner.Runner`` with notes for the user. An image depends on its own prompt, seed
and settings; what it depends on stands in its record.

    from dit_tools.tasks.generate.request import Request, plan_generation

    request = Request(prompts=["a red apple"], values={"seed": "1..4", "steps": 30}, output="out/")
    run, notes = plan_generation(request, listen=print)
    outcome = run.start()
    print(outcome.written, outcome.exit_code)

Helpers: ``batching``, ``sample_batch``, ``sheets``, ``compare``, ``tune_cache`` and ``scorer``.
"""
