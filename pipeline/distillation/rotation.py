"""Rotations after which all dimensions of a distribution have the same variance (PHI-S)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import hadamard

__all__ = ["equal_variance_rotation", "hadamard_matrix"]

Floats = NDArray[np.float64]


def equal_variance_rotation(covariance_CC: Floats) -> Floats:
    """An orthogonal R [C, C] for which R covariance R^T has a constant diagonal.

    R = H U^T (PHI-S, section 3.2.2): U are the eigenvectors, H is a Hadamard matrix divided by
    sqrt(C), which gives each dimension an equal part of every eigenvalue. If ``hadamard_matrix``
    knows none of size C, Givens rotations make the variances equal (Bendel and Mickey 1978).
    """
    eigenvalues_C, vectors_CC = np.linalg.eigh(covariance_CC)
    axes_CC = _with_fixed_signs(vectors_CC[:, ::-1]).T
    matrix_CC = hadamard_matrix(len(covariance_CC))
    if matrix_CC is not None:
        return np.asarray(matrix_CC @ axes_CC / np.sqrt(len(covariance_CC)), np.float64)
    return _givens(np.clip(eigenvalues_C[::-1], 0, None)) @ axes_CC


def _with_fixed_signs(vectors_CC: Floats) -> Floats:
    """Eigenvectors (columns) whose largest component is positive: LAPACK leaves the sign open."""
    largest_C = np.abs(vectors_CC).argmax(axis=0)
    signs_C = np.sign(vectors_CC[largest_C, np.arange(len(vectors_CC))])
    return np.asarray(vectors_CC * signs_C, np.float64)


def hadamard_matrix(size: int) -> Floats | None:
    """A Hadamard matrix (entries 1 and -1, orthogonal rows), or None if none is known here.

    Sylvester's for powers of two, times Paley's first one for q + 1, with a prime q = 3 mod 4. This
    covers the usual widths of networks: 192, 384, 768, 1152, 1280, 1408, 1536, 2048.
    """
    powers = 1
    while size % powers == 0:
        order = size // powers
        if order == 1:
            return np.asarray(hadamard(powers), np.float64)
        if order % 4 == 0 and _is_prime(order - 1):
            return np.asarray(np.kron(hadamard(powers), _paley(order - 1)), np.float64)
        powers *= 2
    return None


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % d for d in range(2, int(number**0.5) + 1))


def _paley(prime: int) -> Floats:
    """Paley's first Hadamard matrix of size prime + 1, for a prime that is 3 mod 4."""
    residue = np.full(prime, -1.0)
    residue[np.arange(1, prime) ** 2 % prime] = 1
    residue[0] = 0
    number = np.arange(prime)
    skew = np.zeros((prime + 1, prime + 1))
    skew[0, 1:], skew[1:, 0] = 1, -1
    skew[1:, 1:] = residue[(number[:, None] - number) % prime]
    return skew + np.eye(prime + 1)


def _givens(eigenvalues_C: Floats) -> Floats:
    """An orthogonal Q for which Q diag(eigenvalues) Q^T has a constant diagonal.

    Each rotation mixes a dimension below the mean with one above it, and gives one of them the mean
    exactly; at most C - 1 are needed.
    """
    size, mean = len(eigenvalues_C), float(eigenvalues_C.mean())
    matrix_CC, rotation_CC = np.diag(eigenvalues_C), np.eye(size)
    open_C = np.ones(size, np.bool_)
    for _ in range(size - 1):
        offset_C = np.where(open_C, matrix_CC.diagonal() - mean, 0)
        low, high = int(offset_C.argmin()), int(offset_C.argmax())
        if offset_C[low] >= 0 or offset_C[high] <= 0:
            break
        turn_22 = _turn(offset_C[low], offset_C[high], float(matrix_CC[low, high]))
        pair = [low, high]
        matrix_CC[pair] = turn_22 @ matrix_CC[pair]
        matrix_CC[:, pair] = matrix_CC[:, pair] @ turn_22.T
        rotation_CC[pair] = turn_22 @ rotation_CC[pair]
        matrix_CC[low, low] = mean
        open_C[low] = False
    return rotation_CC


def _turn(low: float, high: float, cross: float) -> Floats:
    """The rotation [2, 2] after which the first of two dimensions has an offset of 0.

    ``low`` < 0 < ``high``: offsets of their variances from the mean; ``cross``: their covariance.
    The tangent t solves high t^2 + 2 cross t + low = 0; this form of the root does not cancel.
    """
    root = np.sqrt(cross * cross - low * high)
    tangent = -low / (cross + root) if cross >= 0 else (root - cross) / high
    cosine = 1 / np.hypot(1, tangent)
    return np.asarray([[cosine, cosine * tangent], [-cosine * tangent, cosine]], np.float64)
