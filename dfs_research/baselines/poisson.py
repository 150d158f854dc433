"""Surface from a gradient field: least-squares integration in the cosine domain.

P maps an image (H, W) to its forward differences along x and y. The z of zero mean that minimises |P z - g|^2 solves
the Poisson equation P^T P z = P^T g, with Neumann boundary (nothing flows over the border). The cosines of the DCT-II
are the eigenvectors of P^T P, so the solve is a division by its eigenvalues

    lambda_kl = (2 - 2 cos(pi k / H)) + (2 - 2 cos(pi l / W)),     the mean, k = l = 0, stays 0.

Frankot and Chellappa, PAMI 1988; Simchony, Chellappa and Shao, PAMI 1990. The DCT is a product with its matrix: exact
to rounding, differentiable, and nothing but matrix products for any backend.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def gradient(z: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences P z of z (..., H, W).

    Returns (..., H, W - 1) along x and (..., H - 1, W) along y.
    """
    return z[..., :, 1:] - z[..., :, :-1], z[..., 1:, :] - z[..., :-1, :]


def transposed_gradient(gx: Tensor, gy: Tensor) -> Tensor:
    """Transpose P^T g (..., H, W) of the forward differences.

    `gx` (..., H, W - 1), `gy` (..., H - 1, W).
    """
    pad = torch.nn.functional.pad
    return pad(gx, (1, 0)) - pad(gx, (0, 1)) + pad(gy, (0, 0, 1, 0)) - pad(gy, (0, 0, 0, 1))


def integrate(gx: Tensor, gy: Tensor) -> Tensor:
    """Surface (..., H, W) of zero mean with these forward differences, in least squares.

    `gx` (..., H, W - 1), `gy` (..., H - 1, W). Raises ValueError for shapes that do not match.
    """
    height, width = gx.shape[-2], gy.shape[-1]
    if gx.shape[-1] != width - 1 or gy.shape[-2] != height - 1 or gx.shape[:-2] != gy.shape[:-2]:
        raise ValueError(
            f"gradient: expected (..., H, W - 1) along x and (..., H - 1, W) along y, "
            f"received {tuple(gx.shape)} and {tuple(gy.shape)}"
        )
    right = transposed_gradient(gx, gy)
    rows, columns = cosines(height, right), cosines(width, right)
    eigenvalues = neumann_eigenvalues(height, right)[:, None] + neumann_eigenvalues(width, right)
    eigenvalues[0, 0] = 1.0
    spectrum = rows @ right @ columns.T / eigenvalues
    mean = torch.zeros_like(eigenvalues)
    mean[0, 0] = 1.0
    return rows.T @ (spectrum * (1.0 - mean)) @ columns


def cosines(n: int, like: Tensor) -> Tensor:
    """Orthonormal DCT-II matrix (n, n), device and dtype of `like`."""
    k = torch.arange(n, device=like.device, dtype=torch.float64)
    matrix = torch.cos(math.pi * k[:, None] * (k + 0.5) / n) * math.sqrt(2.0 / n)
    matrix[0] *= math.sqrt(0.5)
    return matrix.to(like.dtype)


def neumann_eigenvalues(n: int, like: Tensor) -> Tensor:
    """Eigenvalues (n,) of the second difference with Neumann boundary."""
    k = torch.arange(n, device=like.device, dtype=torch.float64)
    return (2.0 - 2.0 * torch.cos(math.pi * k / n)).to(like.dtype)
