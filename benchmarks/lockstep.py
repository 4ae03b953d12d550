"""Functions that ask a question each are answered with one call.

A guide is an ordinary function that asks for branches when it likes. Here several run side by side,
each in a thread of its own that waits whenever it has asked; when all wait, one network call serves
them. Only one thing happens at a time, so that nothing needs a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

Ask = Callable[[Any], Any]


def together(jobs: Sequence[Callable[[Ask], Any]], answer: Callable[[list[Any]], list[Any]]):
    """The results of ``jobs``; each is called with ``ask(question)``.

    ``answer`` gets what all waiting jobs have asked as (number of the job, question) and gives an
    answer for each. Raises what a job or ``answer`` raises, after every job has ended.
    """
    said: SimpleQueue[tuple[str, int, Any]] = SimpleQueue()
    heard: list[SimpleQueue[Any]] = [SimpleQueue() for _ in jobs]

    def work(number: int) -> None:
        def ask(question: Any) -> Any:
            said.put(("asks", number, question))
            reply = heard[number].get()
            if isinstance(reply, BaseException):
                raise reply
            return reply

        try:
            said.put(("done", number, jobs[number](ask)))
        except BaseException as error:
            said.put(("failed", number, error))

    for number in range(len(jobs)):
        Thread(target=work, args=(number,), daemon=True).start()
    return _serve(len(jobs), said, heard, answer)


def _serve(
    live: int, said: SimpleQueue[Any], heard: Sequence[SimpleQueue[Any]], answer: Callable[[list[Any]], list[Any]]
) -> list[Any]:
    results: list[Any] = [None] * live
    waiting: list[tuple[int, Any]] = []
    trouble: BaseException | None = None
    while live:
        kind, number, value = said.get()
        if kind == "asks":
            waiting.append((number, value))
        else:
            live -= 1
            results[number] = value
            trouble = trouble or (value if kind == "failed" else None)
        if waiting and len(waiting) == live:
            waiting.sort(key=lambda pair: pair[0])
            replies = _replies(waiting, answer, trouble)
            trouble = trouble or next((r for r in replies if isinstance(r, BaseException)), None)
            for (asker, _), reply in zip(waiting, replies, strict=True):
                heard[asker].put(reply)
            waiting = []
    if trouble is not None:
        raise trouble
    return results


def _replies(
    waiting: list[tuple[int, Any]], answer: Callable[[list[Any]], list[Any]], trouble: BaseException | None
) -> list[Any]:
    """Answers, or what went wrong for everybody."""
    if trouble is not None:
        return [trouble] * len(waiting)
    try:
        return answer(waiting)
    except BaseException as error:
        return [error] * len(waiting)
