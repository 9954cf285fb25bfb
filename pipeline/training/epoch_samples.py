"""The samples of each epoch, without those that the task skips.

Whether a sample is skipped has to be known before its epoch begins, because the number of steps
depends on it. So each worker judges its share of the next epoch's samples in a thread, while it
trains on the current epoch; the shares are exchanged when the next epoch begins.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from distinit.pipeline.training.collective import Collective, SingleProcess
from distinit.pipeline.training.task import TrainingTask

__all__ = ["JUDGE_BLOCK", "EpochSamples", "samples_of"]

JUDGE_BLOCK = 8192  # samples judged at once

type _Bools = NDArray[np.bool_]
type _Ints = NDArray[np.int64]


class EpochSamples:
    """The samples of the epochs of one training. ``close`` it in the end."""

    def __init__(self, task: TrainingTask, collective: Collective, device: torch.device) -> None:
        """``device``: where ``collective`` exchanges tensors."""
        self._task, self._collective, self._device = task, collective, device
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._judged: dict[int, Future[_Bools]] = {}
        self._closed = threading.Event()

    def prepare(self, epoch: int) -> None:
        """Begin to judge this worker's share of the samples of ``epoch``, in a thread."""
        if self._task.skips and epoch not in self._judged:
            self._judged[epoch] = self._pool.submit(self._judge, epoch)

    def of(self, epoch: int) -> _Ints:
        """The samples of ``epoch`` that are trained on, in this order.

        All workers have to call this for the same epoch at the same time. Raises what the task
        raises when it judges.
        """
        order_N = self._task.order(epoch)
        if not self._task.skips:
            return order_N
        self.prepare(epoch)
        kept_N = self._judged.pop(epoch).result()
        if self._collective.world_size > 1:
            sum_N = torch.from_numpy(kept_N.astype(np.uint8)).to(self._device)
            self._collective.sum_(sum_N)
            kept_N = sum_N.cpu().numpy().astype(np.bool_)
        samples_K: _Ints = order_N[kept_N[order_N]]
        return samples_K

    def close(self) -> None:
        """Stop judging."""
        self._closed.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _judge(self, epoch: int) -> _Bools:
        """Which samples of this worker's share are kept: bool [N], False for all others."""
        count = len(self._task.order(epoch))
        kept_N = np.zeros(count, np.bool_)
        # Blocks that do not depend on the number of workers: nor does the rounding of entropies.
        blocks = np.array_split(np.arange(count), max(1, -(-count // JUDGE_BLOCK)))
        rank, workers = self._collective.rank, self._collective.world_size
        for block_M in blocks[rank * len(blocks) // workers : (rank + 1) * len(blocks) // workers]:
            if self._closed.is_set():
                break
            kept_N[block_M] = self._task.keeps(epoch, block_M)
        return kept_N


def samples_of(task: TrainingTask, epoch: int) -> _Ints:
    """The samples of one epoch, judged at once in this process."""
    samples = EpochSamples(task, SingleProcess(), torch.device("cpu"))
    try:
        return samples.of(epoch)
    finally:
        samples.close()
