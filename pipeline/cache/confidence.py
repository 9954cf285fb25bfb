"""The confidence of a teacher per frame, and what an encoding loses. Computed in fp64."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import numpy as np

from distinit.schemas.manifest import FidelitySums
from distinit.schemas.output_reports import FidelityReport

__all__ = [
    "Confidence",
    "Fidelity",
    "confidence_of",
    "fidelity_of",
    "fidelity_report",
    "fidelity_sums",
    "filter_flips",
    "log_softmax",
    "precision_loss_sums",
]


@dataclass(frozen=True, slots=True)
class Confidence:
    """The columns of the confidence table, each [N]."""

    entropy_nats: np.ndarray  # fp32
    top1_class: np.ndarray  # int32
    top1_probability: np.ndarray  # fp32
    margin: np.ndarray  # fp32, top-1 minus top-2 probability
    log_z: np.ndarray  # fp32, logsumexp of the logits, nats


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What encoding lost per frame, each [N]."""

    kl_nats: np.ndarray  # fp64, KL(fp32 || stored)
    entropy_nats: np.ndarray  # fp64, of the fp32 logits
    entropy_error_nats: np.ndarray  # fp64, absolute
    top1_agrees: np.ndarray  # bool

    @classmethod
    def zeros(cls, rows: int) -> Fidelity:
        """Zeros for ``rows`` frames."""
        return cls(np.zeros(rows), np.zeros(rows), np.zeros(rows), np.zeros(rows, bool))

    def __getitem__(self, part: slice) -> Fidelity:
        return Fidelity(*(getattr(self, field.name)[part] for field in fields(self)))

    def put(self, rows: slice, values: Fidelity) -> None:
        """Store the values of some frames at ``rows``."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(values, field.name)


def log_softmax(logits_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log probabilities [N, C], log_z [N]) in fp64."""
    x_NC = logits_NC.astype(np.float64)
    peak_N1 = x_NC.max(axis=1, keepdims=True)
    log_z_N1 = peak_N1 + np.log(np.exp(x_NC - peak_N1).sum(axis=1, keepdims=True))
    return x_NC - log_z_N1, log_z_N1[:, 0]


def _entropy(logp_NC: np.ndarray, p_NC: np.ndarray) -> np.ndarray:
    # At p = 0 logp is finite, as logits are, so the product is 0, which is right.
    entropy_N: np.ndarray = np.maximum(-(p_NC * logp_NC).sum(axis=1), 0.0)
    return entropy_N


def confidence_of(logits_NC: np.ndarray) -> Confidence:
    """Confidence of fp32 logits [N, C], before any encoding."""
    logp_NC, log_z_N = log_softmax(logits_NC)
    p_NC = np.exp(logp_NC)
    top1_N = logits_NC.argmax(axis=1)
    best_N = np.take_along_axis(p_NC, top1_N[:, None], axis=1)[:, 0]
    if logits_NC.shape[1] > 1:
        second_N = np.partition(p_NC, -2, axis=1)[:, -2]
    else:
        second_N = np.zeros_like(best_N)
    return Confidence(
        entropy_nats=_entropy(logp_NC, p_NC).astype(np.float32),
        top1_class=top1_N.astype(np.int32),
        top1_probability=best_N.astype(np.float32),
        margin=(best_N - second_N).astype(np.float32),
        log_z=log_z_N.astype(np.float32),
    )


def fidelity_of(logits_NC: np.ndarray, stored_NC: np.ndarray) -> Fidelity:
    """Compare fp32 logits with their decoded stored form, both [N, C]."""
    logp_NC, _ = log_softmax(logits_NC)
    logq_NC, _ = log_softmax(stored_NC)
    p_NC = np.exp(logp_NC)
    kl_N = np.maximum((p_NC * (logp_NC - logq_NC)).sum(axis=1), 0.0)
    entropy_N = _entropy(logp_NC, p_NC)
    error_N = np.abs(entropy_N - _entropy(logq_NC, np.exp(logq_NC)))
    agrees_N = logits_NC.argmax(axis=1) == stored_NC.argmax(axis=1)
    return Fidelity(kl_N, entropy_N, error_N, agrees_N)


def filter_flips(true_N: np.ndarray, stored_N: np.ndarray) -> np.ndarray:
    """bool [N]: frames for which filtering at a quartile of ``true_N`` gives another result.

    The other result is that of ``stored_N``. Entropies are in nats; thresholds and comparisons are
    fp32, the precision of the stored column.
    """
    quartiles_3 = np.quantile(true_N, (0.25, 0.5, 0.75)).astype(np.float32)[:, None]
    flips: np.ndarray = (
        (true_N.astype(np.float32) <= quartiles_3) != (stored_N.astype(np.float32) <= quartiles_3)
    ).any(axis=0)
    return flips


def fidelity_sums(
    fidelity: Fidelity, stored_entropy_nats: np.ndarray, rows: np.ndarray
) -> FidelitySums:
    """Sums over the frames at ``rows``, in row order, so that batch sizes do not matter.

    ``stored_entropy_nats`` is the column of the confidence table, with the same rows as
    ``fidelity``.
    """
    if not len(rows):
        return FidelitySums()
    kl_N = fidelity.kl_nats[rows]
    return FidelitySums(
        frames=len(rows),
        kl_nats_sum=float(kl_N.sum()),
        kl_nats_max=float(kl_N.max()),
        entropy_error_nats_sum=float(fidelity.entropy_error_nats[rows].sum()),
        top1_agreements=int(fidelity.top1_agrees[rows].sum()),
        filter_flips=int(
            filter_flips(fidelity.entropy_nats[rows], stored_entropy_nats[rows]).sum()
        ),
    )


def precision_loss_sums(exact_NC: np.ndarray, logits_NC: np.ndarray) -> FidelitySums:
    """Sums over frames whose logits were computed in fp32 (``exact_NC``) and as they are stored."""
    fidelity = fidelity_of(exact_NC, logits_NC)
    entropy_nats = confidence_of(logits_NC).entropy_nats
    return fidelity_sums(fidelity, entropy_nats, np.arange(len(logits_NC)))


def fidelity_report(sums: Iterable[FidelitySums]) -> FidelityReport | None:
    """Merge the sums of all units. Returns None where there are no frames."""
    parts = [part for part in sums if part.frames]
    frames = sum(part.frames for part in parts)
    if not frames:
        return None
    return FidelityReport(
        frames=frames,
        mean_kl_nats=sum(part.kl_nats_sum for part in parts) / frames,
        max_kl_nats=max(part.kl_nats_max for part in parts),
        mean_entropy_error_nats=sum(part.entropy_error_nats_sum for part in parts) / frames,
        top1_agreement=sum(part.top1_agreements for part in parts) / frames,
        filter_flips=sum(part.filter_flips for part in parts) / frames,
        measured_against=_reference_of(parts),
    )


def _reference_of(parts: Iterable[FidelitySums]) -> str | None:
    """What the frames were compared with; None if that is fp32 for all of them."""
    references = sorted({part.measured_against or "fp32" for part in parts})
    return None if references == ["fp32"] else ", ".join(references)
