"""The handle of a hook."""

from typing import Any


class HookHandle:
    """What register_hook returns; `remove()` takes the hook off."""

    def __init__(self, hooks: dict[int, Any], number: int) -> None:
        self.hooks = hooks
        self.number = number

    def remove(self) -> None:
        self.hooks.pop(self.number, None)
