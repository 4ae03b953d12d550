"""The library under the ``dit`` commands: one layer per stage of a diffusion-transformer run."""

__version__ = "0.1.0"

_PUBLIC = {
    "Image": "dit_tools.tasks.python_api",
    "Plan": "dit_tools.core.plan",
    "edit": "dit_tools.tasks.python_api",
    "load": "dit_tools.tasks.python_api",
    "plan_for": "dit_tools.tasks.python_api",
    "sample": "dit_tools.tasks.python_api",
}
"""Name -> module: nothing is imported before it is asked for, so that ``dit --help`` stays fast."""


def __getattr__(name: str) -> object:
    from importlib import import_module

    if name not in _PUBLIC:
        raise AttributeError(f"module 'dit_tools' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
