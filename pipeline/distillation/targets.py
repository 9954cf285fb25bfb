"""Makes the targets of clips from the stored logits of one teacher (paper sections 3 and 4.3).

The target of a clip comes only from frames inside the clip. Rows are looked up by (video, frame).
The cache stores logits; softmax is applied here, once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distinit.pipeline.cache.quantile import quantile
from distinit.pipeline.cache.teacher_targets import TeacherTargets
from distinit.pipeline.distillation.normalization import Normalization
from distinit.schemas.distill import TargetConfig
from distinit.schemas.losses import DISTRIBUTION_LOSSES
from distinit.schemas.teacher import TeacherRecord

__all__ = [
    "ClipTargets",
    "TargetReader",
    "average_frames",
    "entropy_nats",
    "select_frames",
]

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating]
Ints = NDArray[np.int64]
Pick = Literal["center", "random", "uniform", "k_random", "all"]


@dataclass(frozen=True, slots=True)
class ClipTargets:
    """Targets of B clips from one teacher."""

    target_BC: Tensor
    """fp32: probabilities for cross_entropy and kl; logits or features for the other losses and
    for a reader created with ``as_logits``. 0 for clips without a target."""
    present_B: Bools
    """The clip has a target: the cache stores at least one of its frames."""
    confident_B: Bools
    """The clip has a target, and its entropy is at most the threshold."""


def select_frames(pick: Pick, k: int, present_NT: Bools, uniform_NT: Floats) -> Bools:
    """Selects the frames that each clip's target is made from: bool [N, T].

    Only present frames are selected. center: the one nearest to T // 2. random and k_random: one
    or k of them, without replacement, decided by ``uniform_NT``. uniform: k of them, evenly
    spaced. all: every one. If fewer than k are present, all of them are selected.
    """
    if pick == "all":
        return present_NT
    if pick == "uniform":
        return _evenly_spread(present_NT, k)
    frames = present_NT.shape[1]
    if pick == "center":
        key_NT = np.broadcast_to(np.abs(np.arange(frames) - frames // 2), present_NT.shape)
    else:
        key_NT = uniform_NT
    count = k if pick == "k_random" else 1
    order_NT = np.argsort(np.where(present_NT, key_NT, np.inf), axis=1, kind="stable")
    selected_NT = np.zeros_like(present_NT)
    np.put_along_axis(selected_NT, order_NT[:, :count], True, axis=1)
    return selected_NT & present_NT


def _evenly_spread(present_NT: Bools, k: int) -> Bools:
    """The middle frames of k equal parts of the present frames."""
    rank_NT = np.cumsum(present_NT, axis=1) - 1
    count_N = present_NT.sum(axis=1)
    selected_NT = np.zeros_like(present_NT)
    for part in range(k):
        middle_N = (2 * part + 1) * count_N // (2 * k)
        selected_NT |= present_NT & (rank_NT == middle_N[:, None])
    return selected_NT


def average_frames(values_MC: Floats, clip_M: Ints, clips: int) -> Floats:
    """Mean over the frames of each clip: [clips, C].

    ``clip_M``, sorted, is the clip of each frame. Clips without frames get 0.
    """
    means_NC = np.zeros((clips, values_MC.shape[1]), values_MC.dtype)
    if len(clip_M):
        clip_K, first_K, count_K = np.unique(clip_M, return_index=True, return_counts=True)
        means_NC[clip_K] = np.add.reduceat(values_MC, first_K, axis=0) / count_K[:, None]
    return means_NC


def entropy_nats(probabilities_NC: Tensor) -> Tensor:
    """Shannon entropy [N] in nats."""
    entropy_N: Tensor = torch.special.entr(probabilities_NC.double()).sum(dim=1)
    return entropy_N


class TargetReader:
    """Reads one teacher's targets for clips, as configured by one TargetConfig.

    ``mirrored``: targets of the same teacher for mirrored frames; they become the targets of
    flipped clips. ``as_logits``: return mean logits for every loss, to be averaged over teachers.
    ``normalization``: of features, applied to the mean of the frames (for each frame the result
    would be the same).

    A filter with ``keep_fraction`` has a threshold only after ``set_threshold``. Raises CacheError
    for a filter on a teacher without entropies.
    """

    def __init__(
        self,
        config: TargetConfig,
        targets: TeacherTargets,
        mirrored: TeacherTargets | None = None,
        *,
        as_logits: bool = False,
        normalization: Normalization | None = None,
    ) -> None:
        self.config = config
        self.teacher = targets.record
        self.mirrored = None if mirrored is None else mirrored.record
        self.normalization = normalization
        self._targets = targets
        self._mirrored = mirrored
        # auto stands for cross_entropy: for features, open_reader replaces it.
        distribution = config.loss in {"auto", *DISTRIBUTION_LOSSES} and not as_logits
        self._temperature = config.temperature if distribution else None
        self.committed_U: Bools = targets.committed_units
        """bool [units]: units of the cache whose targets can be read."""
        if mirrored is not None:
            self.committed_U = self.committed_U & mirrored.committed_units
        self._is_whole = bool(self.committed_U.all())
        self._unit_rows = targets.unit_rows
        self.filters = config.filter.can_drop
        """Whether the filter can drop a clip."""
        self._threshold_nats = config.filter.max_entropy_nats
        if not self.filters:
            self._threshold_nats = float("inf")
        else:
            _ = targets.entropy_nats  # raises CacheError for features

    @property
    def stored(self) -> tuple[TeacherRecord, ...]:
        """The teachers of the cache whose stored values are read."""
        return tuple(t.stored_record for t in (self._targets, self._mirrored) if t is not None)

    @property
    def threshold_nats(self) -> float:
        """Largest entropy of a target that the filter keeps, nats; infinite without a filter."""
        if self._threshold_nats is None:
            raise RuntimeError("a filter with keep_fraction has no threshold before set_threshold")
        return self._threshold_nats

    def set_threshold(self, threshold_nats: float) -> None:
        """Set the threshold of a filter; see thresholds.py."""
        self._threshold_nats = threshold_nats

    @property
    def votes(self) -> bool:
        """Whether the teacher can be confident, and so takes part in ``combine_filters``."""
        return self.teacher.identity.target == "logits"

    @property
    def averages_frames(self) -> bool:
        """Whether a target can be the average of several frames."""
        several = self.config.pick in {"uniform", "k_random"} and self.config.k > 1
        return several or self.config.pick == "all"

    def read(self, rows_NT: Ints, uniform_NT: Floats, flip_N: Bools | None = None) -> ClipTargets:
        """Targets of N clips.

        ``rows_NT``: cache row of each frame, -1 if the cache has none. ``flip_N``: clips whose
        pixels are mirrored; None: no clip is. Rows that an incomplete teacher has not written
        count as missing. Raises CacheCorruptError for damaged targets.
        """
        rows_NT = self.written(rows_NT)
        selected_NT = select_frames(self.config.pick, self.config.k, rows_NT >= 0, uniform_NT)
        clip_M = np.nonzero(selected_NT)[0]
        flip_N = np.zeros(len(rows_NT), np.bool_) if flip_N is None else flip_N
        logits_MC = self._logits(rows_NT[selected_NT], flip_N[clip_M])
        target_NC = self._average(logits_MC, clip_M, len(rows_NT), self._temperature)
        if self.normalization is not None:
            target_NC = self.normalization.apply(target_NC)
        target_NC[~selected_NT.any(axis=1)] = 0  # a softmax over no frames is not a target
        confident_N = self._confident(rows_NT, selected_NT, flip_N, logits_MC)
        return ClipTargets(target_NC, selected_NT.any(axis=1), confident_N)

    def confident(self, rows_NT: Ints, uniform_NT: Floats, flip_N: Bools | None = None) -> Bools:
        """``read(...).confident_B``, without reading logits if the stored entropies suffice."""
        rows_NT = self.written(rows_NT)
        selected_NT = select_frames(self.config.pick, self.config.k, rows_NT >= 0, uniform_NT)
        flip_N = np.zeros(len(rows_NT), np.bool_) if flip_N is None else flip_N
        return self._confident(rows_NT, selected_NT, flip_N, None)

    def clip_entropies(self, rows_NT: Ints, uniform_NT: Floats, flip_N: Bools) -> Floats:
        """Entropies of the targets of N clips, fp32 [N] in nats; NaN for clips without a target.

        Arguments as for ``read``. The threshold is not needed.
        """
        rows_NT = self.written(rows_NT)
        selected_NT = select_frames(self.config.pick, self.config.k, rows_NT >= 0, uniform_NT)
        return self._clip_entropies(rows_NT, selected_NT, flip_N, None)

    def stored_entropies(self, rows_M: Ints, flip_M: Bools) -> Floats:
        """Stored entropies of frames, fp32 [M] in nats; of the mirrored frames for ``flip_M``."""
        if self._mirrored is None:
            return self._targets.entropy_nats[rows_M]
        return np.where(
            flip_M, self._mirrored.entropy_nats[rows_M], self._targets.entropy_nats[rows_M]
        )

    def written(self, rows_NT: Ints) -> Ints:
        """``rows_NT`` with -1 for rows that this teacher has not written."""
        if self._is_whole:
            return rows_NT
        unit_NT = np.maximum(rows_NT, 0) // self._unit_rows
        return np.where((rows_NT >= 0) & self.committed_U[unit_NT], rows_NT, -1)

    def lowest_entropy_nats(self) -> float | None:
        """The lowest stored entropy in nats, if no clip's target can have a lower one, else None.

        The mean of the logits of several frames can have a lower entropy than each of them.
        """
        if self.config.filter.max_entropy_nats is None:
            return None  # without max_entropy_nats some frames are always kept
        if self.averages_frames and self.config.average == "logits":
            return None
        sources = [t for t in (self._targets, self._mirrored) if t is not None]
        return min(quantile(targets.entropy_nats, 0.0) for targets in sources)

    def _logits(self, rows_M: Ints, flip_M: Bools) -> Floats:
        """Logits [M, C]: for ``flip_M`` those of the mirrored frames, if they are stored."""
        if self._mirrored is None or not flip_M.any():
            return self._targets.logits(rows_M)
        logits_MC = np.empty((len(rows_M), self.teacher.identity.classes), np.float32)
        logits_MC[flip_M] = self._mirrored.logits(rows_M[flip_M])
        logits_MC[~flip_M] = self._targets.logits(rows_M[~flip_M])
        return logits_MC

    def _average(
        self, logits_MC: Floats, clip_M: Ints, clips: int, temperature: float | None
    ) -> Tensor:
        """Mean logits [clips, C] without a temperature, else probabilities."""
        if temperature is None:
            return torch.from_numpy(average_frames(logits_MC, clip_M, clips))
        if self.config.average == "logits":
            mean_NC = torch.from_numpy(average_frames(logits_MC, clip_M, clips))
            return torch.softmax(mean_NC / temperature, dim=1)
        probabilities_MC = torch.softmax(torch.from_numpy(logits_MC) / temperature, dim=1)
        return torch.from_numpy(average_frames(probabilities_MC.numpy(), clip_M, clips))

    def _confident(
        self, rows_NT: Ints, selected_NT: Bools, flip_N: Bools, logits_MC: Floats | None
    ) -> Bools:
        """Whether the entropy of each clip's target is at most the threshold: bool [N]."""
        if not self.filters:
            return selected_NT.any(axis=1)
        entropy_N = self._clip_entropies(rows_NT, selected_NT, flip_N, logits_MC)
        return entropy_N <= np.float32(self.threshold_nats)

    def _clip_entropies(
        self, rows_NT: Ints, selected_NT: Bools, flip_N: Bools, logits_MC: Floats | None
    ) -> Floats:
        """For a target of one frame its stored entropy, else that of the average: fp32 [N].

        The entropy of an average is computed at temperature 1. NaN for clips without a target.
        """
        entropy_N = np.full(len(rows_NT), np.nan, np.float32)
        count_N = selected_NT.sum(axis=1)
        single_N = count_N == 1
        rows_K = rows_NT[selected_NT & single_N[:, None]]
        entropy_N[single_N] = self.stored_entropies(rows_K, flip_N[single_N])
        several_N = count_N > 1
        if several_N.any():
            clip_M = np.nonzero(selected_NT)[0]
            if logits_MC is None:
                logits_MC = self._logits(rows_NT[selected_NT], flip_N[clip_M])
            average_NC = self._average(logits_MC, clip_M, len(rows_NT), 1.0)
            entropy_N[several_N] = entropy_nats(average_NC).numpy()[several_N]
        return entropy_N
