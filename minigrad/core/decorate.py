"""What a mode of a thread (no_grad, enable_grad, detect_anomaly) does as a decorator: for
functions, generators and async functions."""

import functools
import inspect
from typing import Any

__all__ = ["in_context"]


def in_context(context: Any, function: Any) -> Any:
    """`function` with its body run in context(): no_grad, enable_grad or detect_anomaly.

    A generator and a coroutine are in it only while they run, not while their caller does.
    """
    if inspect.isclass(function) or not callable(function):
        kind = "a class" if inspect.isclass(function) else type(function).__name__
        raise TypeError(f"{context.__name__}: can decorate functions, got {kind}")
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            advance = generator.asend(None)
            while True:
                try:
                    value = await _Steps(context, advance.__await__())
                except StopAsyncIteration:
                    return
                try:
                    advance = generator.asend((yield value))
                except GeneratorExit:
                    await _Steps(context, generator.aclose().__await__())
                    raise
                except BaseException as error:
                    advance = generator.athrow(error)
    elif inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            return await _Steps(context, function(*args, **kwargs).__await__())
    elif inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return (yield from _steps(context, function(*args, **kwargs)))
    else:

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with context():
                return function(*args, **kwargs)

    return wrapped


def _steps(context: Any, generator: Any) -> Any:
    """A generator that does what `generator` does, each step of it in a context of its own."""
    advance, value = generator.send, None
    while True:
        try:
            with context():
                value = advance(value)
        except StopIteration as end:
            return end.value
        try:
            advance, value = generator.send, (yield value)
        except GeneratorExit:
            with context():
                generator.close()
            raise
        except BaseException as error:
            advance, value = generator.throw, error


class _Steps:
    """The same for what is awaited."""

    def __init__(self, context: Any, iterator: Any) -> None:
        self.context, self.iterator = context, iterator

    def __await__(self) -> Any:
        return _steps(self.context, self.iterator)
