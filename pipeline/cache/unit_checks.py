"""Deep checks of many units, several at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from math import prod

from distinit.pipeline.cache.feature_moments import scatter_shape
from distinit.pipeline.cache.layout import CacheLayout
from distinit.pipeline.cache.state import CacheState
from distinit.pipeline.cache.unit_check import UnitFindings, check_unit
from distinit.pipeline.progress import Progress

__all__ = ["check_units", "threads_for"]

_MOMENTS_BYTES = 4 << 30
_MATRICES = 4  # of each thread: three while it computes, one that waits to be merged


def check_units(
    layout: CacheLayout,
    state: CacheState,
    absent: Collection[str],
    workers: int,
    progress: Progress,
    measured: Collection[str] = (),
) -> Iterator[UnitFindings]:
    """Read all committed units once; yields what was found, in the order of the units.

    Args:
        layout: Paths of the cache.
        state: Its plan and its commit records.
        absent: Files that are known to be missing or damaged, which are not read.
        workers: Threads, each of which checks one unit at a time; fewer where moments would take
            more than 4 GiB.
        progress: Shows the bytes that were read.
        measured: Feature teachers whose moments are computed.
    """
    size_of = _unit_bytes(state)
    workers = threads_for(workers, [state.records[t].identity.channels for t in measured])
    check = partial(
        check_unit, layout, state, absent=frozenset(absent), measured=frozenset(measured)
    )
    progress.start("verify", round(sum(size_of.values()) / 1e6, 1), "MB")
    pool = ThreadPoolExecutor(workers, "verify")
    try:
        for found in _in_order(pool, check, size_of, workers):
            yield found
            progress.advance(size_of[found.unit] / 1e6)
    finally:
        pool.shutdown(cancel_futures=True)
    progress.finish()


def threads_for(workers: int, channels: Iterable[int]) -> int:
    """How many of ``workers`` have memory for moments of teachers with so many ``channels``."""
    matrix_bytes = sum(8 * prod(scatter_shape(count)) for count in channels)
    if matrix_bytes == 0:
        return workers
    return max(1, min(workers, _MOMENTS_BYTES // (_MATRICES * matrix_bytes)))


def _in_order(
    pool: ThreadPoolExecutor,
    check: Callable[[int], UnitFindings],
    units: Iterable[int],
    ahead: int,
) -> Iterator[UnitFindings]:
    """What ``check`` returns, with at most ``ahead`` units begun or waiting: moments are large."""
    pending: deque[Future[UnitFindings]] = deque()
    for unit in units:
        pending.append(pool.submit(check, unit))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _unit_bytes(state: CacheState) -> dict[int, int]:
    """Unit -> bytes of its committed files."""
    sizes: dict[int, dict[str, int]] = {}
    for commits in state.commits.values():
        for unit, commit in commits.items():
            known = sizes.setdefault(unit, {})
            known |= {name: entry.size for name, entry in commit.files.items()}
    return {unit: sum(sizes[unit].values()) for unit in sorted(sizes)}
