"""Standing in for modules' forward while a context lasts, through diffusers' hook registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from diffusers.hooks import HookRegistry, ModelHook
from torch import nn

Around = Callable[[int, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""``around(position, compute, args, kwargs) -> output``; ``compute()`` runs the module itself.

``compute(**named)`` runs it on other arguments, all by name.
"""


class _Hook(ModelHook):
    def __init__(self, position: int, around: Around):
        super().__init__()
        self._position, self._around = position, around

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        reference: Any = self.fn_ref  # set by the registry

        def compute(**named: Any) -> Any:
            if named:
                return reference.original_forward(**named)
            return reference.original_forward(*args, **kwargs)

        return self._around(self._position, compute, args, kwargs)


@contextmanager
def around_forward(modules: Sequence[nn.Module], around: Around, name: str) -> Iterator[None]:
    """Inside the context every call of ``modules[i]`` gives ``around(i, compute, args, kwargs)``.

    Hooks that other code registers on the same modules stay in place. The hooks are gone when the
    context is left, by an exception or by closing a generator too. ``name`` is unique on a module:
    a second context of the same name on it raises ValueError and leaves the first one alone.
    """
    with ExitStack() as stack:
        for position, module in enumerate(modules):
            registry = HookRegistry.check_if_exists_or_initialize(module)
            registry.register_hook(_Hook(position, around), name)
            stack.callback(registry.remove_hook, name, recurse=False)
        yield
