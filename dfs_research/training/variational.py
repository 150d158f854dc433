"""DualFocus's two constraints as losses on any probability over depths.

Lee and Woo, arXiv 2509.21992. Focal: along depth the probability rises to one peak and falls. Spatial: across the
image the gradient of depth equals that of a surface described by the features of the right depth. The probability may
be over focus planes (:mod:`dfs_research.baselines.dualfocus`) or over the hypotheses of any network.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dfs_research.baselines.poisson import gradient


def focal_variation(probability: Tensor, known: Tensor | None = None) -> Tensor:
    """Focal variation: squared steps against a single peak, mean over pixels.

    With k the argmax: sum over i < k of max(0, p_i - p_{i+1})^2 + sum over i >= k of max(0, p_{i+1} - p_i)^2.
    `probability` (B, N, H, W), N in order of depth; `known` (B, H, W): pixels that count. 0 for a single peak.
    """
    steps = probability[:, 1:] - probability[:, :-1]
    peak = probability.argmax(dim=1, keepdim=True)
    index = torch.arange(steps.shape[1], device=steps.device)[:, None, None]
    rising = index < peak
    wrong = torch.where(rising, -steps, steps).clamp(min=0.0).square().sum(dim=1)
    if known is None:
        return wrong.mean()
    return torch.where(known, wrong, 0.0).sum() / known.sum().clamp(min=1)


def spatial_variation(truth: Tensor, values: Tensor, slope: Tensor) -> Tensor:
    """Spatial variation: gradients of the surfaces near the truth against those of depth.

    Mean over pixels of sum over n of q_n |grad D* - theta(z*_n)|_1, with q = softmax over n of -|f_n - D*| / step,
    which weighs the planes around the truth.

    Parameters
    ----------
    truth
        (B, h, w) D*, NaN where unknown: a difference to an unknown pixel does not count.
    values
        (B, N) f_n, in the units of `truth`.
    slope
        (B, N, 2, h, w) theta(z*_n): change to the right and downwards, in those units per pixel.
    """
    step = (values[:, 1:] - values[:, :-1]).abs().mean(dim=1).clamp(min=1e-9)
    known = torch.isfinite(truth)
    filled = torch.where(known, truth, 0.0)
    distance = (values[:, :, None, None] - filled[:, None]).abs() / step[:, None, None, None]
    share = (-distance).softmax(dim=1)  # (B, N, h, w)
    dx, dy = gradient(filled)
    known_x, known_y = known[..., :, 1:] & known[..., :, :-1], known[..., 1:, :] & known[..., :-1, :]
    error_x = ((slope[:, :, 0, :, :-1] - dx[:, None]).abs() * share[..., :, :-1]).sum(dim=1)
    error_y = ((slope[:, :, 1, :-1, :] - dy[:, None]).abs() * share[..., :-1, :]).sum(dim=1)
    total = torch.where(known_x, error_x, 0.0).sum() + torch.where(known_y, error_y, 0.0).sum()
    return total / known.sum().clamp(min=1)
