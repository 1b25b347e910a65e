"""Three stages at once: read, work, write."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

_END = object()


def pipelined(items: Iterable, work: Callable, write: Callable, depth: int = 4) -> None:
    """`write(work(item))` for every item, in order, with reading and writing in threads of their own.

    At most `depth` items wait on either side. An error in any stage stops all three and is raised here; no thread
    outlives the call.
    """
    source = iter(items)
    reader, writer = ThreadPoolExecutor(1, "reader"), ThreadPoolExecutor(1, "writer")
    ahead = deque(reader.submit(next, source, _END) for _ in range(depth))
    behind: deque = deque()
    try:
        while (item := ahead.popleft().result()) is not _END:
            ahead.append(reader.submit(next, source, _END))
            if len(behind) == depth:
                behind.popleft().result()
            behind.append(writer.submit(write, work(item)))
        while behind:
            behind.popleft().result()
    finally:
        reader.shutdown(cancel_futures=True)
        writer.shutdown(cancel_futures=True)
        if hasattr(source, "close"):
            source.close()
