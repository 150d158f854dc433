"""Training loss. All terms are in units of hypotheses, so all cameras count alike.

cross entropy   of the probability with the truth, split between the two nearest hypotheses: selects the peak
distance        |i - truth| of the readout, up to a limit: places the depth
pinball         of sigma at 68.3 %, on a logarithmic scale: minimal if 68.3 % of errors are within sigma
"""

from __future__ import annotations

import torch
from torch import Tensor

from dfs_ros.depth.readout import SIGMA_FLOOR
from dfs_ros.depth.readout_torch import median_and_spread

_SHARE_WITHIN_SIGMA = 0.683
_MOST_DISTANCE = 8.0  # larger errors count as this
_DISTANCE_WEIGHT = 1.0
_SIGMA_WEIGHT = 0.1
_SCORE_WEIGHT = 0.2


def training_loss(logits: Tensor, score: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Total loss, and its main parts for the log.

    `logits` (B, D, H, W), `score` (B, D, H/4, W/4) and `truth` (B, H, W): true index, NaN = unknown, not counted. The
    total also holds the cross entropy of the coarse score.
    """
    known = torch.isfinite(truth)
    target = torch.where(known, truth, 0.0).clamp(0.0, logits.shape[1] - 1.0)
    count = known.sum().clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(known, values, 0.0).sum() / count

    log_probability = logits.log_softmax(dim=1)
    entropy = mean(cross_entropy(log_probability, target))
    index, sigma = median_and_spread(log_probability.exp())
    error = (index - target).abs()
    distance = mean(error.clamp(max=_MOST_DISTANCE))
    calibration = mean(pinball(error.detach(), sigma))
    total = entropy + _DISTANCE_WEIGHT * distance + _SIGMA_WEIGHT * calibration

    # The coarse score must be usable alone; its truth is one known pixel of each tile.
    middle = truth[:, 2::4, 2::4]
    known_middle = torch.isfinite(middle)
    coarse = cross_entropy(
        score.log_softmax(dim=1), torch.where(known_middle, middle, 0.0).clamp(0, score.shape[1] - 1.0)
    )
    total = total + _SCORE_WEIGHT * torch.where(known_middle, coarse, 0.0).sum() / known_middle.sum().clamp(min=1)
    within = mean((error < sigma).float())
    parts = {"entropy": entropy, "distance": distance, "within sigma": within}
    return total, {name: value.detach() for name, value in parts.items()}


def cross_entropy(log_probability: Tensor, target: Tensor) -> Tensor:
    """Cross entropy (B, H, W) with the two hypotheses around a true index.

    `log_probability` (B, D, H, W), `target` (B, H, W). The weights of the two put the median at the index.
    """
    below = target.floor().long().clamp(max=max(log_probability.shape[1] - 2, 0))
    fraction = target - below
    above = torch.where(fraction < 0.5, fraction / (fraction + 0.5), 0.5 / (1.5 - fraction))
    both = log_probability.gather(1, torch.stack([below, below + 1], dim=1))
    return -(1.0 - above) * both[:, 0] - above * both[:, 1]


def pinball(error: Tensor, sigma: Tensor) -> Tensor:
    """Pinball loss of log sigma; minimal for the 68.3 % quantile of the error."""
    excess = torch.log(error + SIGMA_FLOOR) - torch.log(sigma + SIGMA_FLOOR)
    return torch.maximum(_SHARE_WITHIN_SIGMA * excess, (_SHARE_WITHIN_SIGMA - 1.0) * excess)
