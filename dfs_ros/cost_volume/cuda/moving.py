"""Cost volume of a camera that moves within the sweep, by kernels. Formulas and slabs: ../moving.py."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dfs_ros.alignment import moving_torch
from dfs_ros.cost_volume.cuda.engines import Engines
from dfs_ros.cost_volume.moving import moving_stack, prepared, px_per_diopter
from dfs_ros.cost_volume.problem import Problem
from dfs_ros.system.transfers import uploaded


def cost_volume(problem: Problem, source: Tensor, engines: Engines) -> Tensor:
    """:func:`dfs_ros.cost_volume.moving.cost_volume`, float32 (D, H, W) on the device of `source`.

    `source`: images of the stack as taken, uint8 (F, H, W[, 3]).
    """
    problem, slabs = prepared(problem)
    stack, device = moving_stack(problem), source.device
    engine = engines.of(problem)
    linear = moving_torch.linear(stack, source, problem.cost.transfer_curve, problem.channel_count)

    def attempt() -> Tensor:
        volume = torch.empty((len(problem.depths_m), *stack.size), device=device)
        for slab in slabs:
            inverse = 1.0 / problem.depths_m[slab]
            middle = float(inverse[0] + inverse[-1]) / 2.0
            planes, inside = moving_torch.seen(stack, linear, middle, problem.pad_px)
            spectra = torch.fft.rfft2(planes, norm="forward").contiguous()
            shifts = px_per_diopter(stack, middle) * (inverse - middle)[:, None, None]
            settings = (np.ascontiguousarray(a, np.float32) for a in (problem.coc_px[slab], shifts))
            coc_px, shifts_px = (uploaded(setting, device) for setting in settings)
            volume[uploaded(slab, device)] = engine.moved(spectra, inside.byte(), coc_px, shifts_px)
        return volume

    return engine.retried(attempt)
