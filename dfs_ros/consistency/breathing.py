"""Compare how the images of a stack grow with focus with how those of a lens do.

A thin lens images the scene larger the nearer it focuses, ``1 / (1 - f D)``; real lenses do 0 to 2 times that, none
clearly the other way. So images that shrink towards near focus show a reversed list, which blur hardly tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dfs_ros.alignment.matching import FrameAlignment
from dfs_ros.optics import thin_lens
from dfs_ros.types import FocalStack

REVERSED, REVERSED_PX = -0.3, 1.0
"""Breathing in units of a thin lens', and as displacement at the image's edge, from which it is the wrong way."""


@dataclass(frozen=True)
class Breathing:
    """Breathing measured on a stack.

    `of_thin_lens` in units of a thin lens' breathing, by least squares over the images; `edge_px`, how far it moves the
    image's edge over the sweep.
    """

    of_thin_lens: float
    edge_px: float

    @property
    def reversed(self) -> bool:
        """Whether images shrink towards near focus."""
        return self.of_thin_lens < REVERSED and self.edge_px > REVERSED_PX

    @property
    def text(self) -> str:
        """The measurement in words."""
        way = "shrinks" if self.of_thin_lens < 0 else "grows"
        return f"the scene {way} by {self.edge_px:.1f} px at the image's edge towards near focus, expected to grow"


def measured_breathing(stack: FocalStack, estimates: Sequence[FrameAlignment]) -> Breathing | None:
    """Breathing of a stack as it came in, by the alignment of its images; None where fewer than two were registered."""
    registered = [i for i, e in enumerate(estimates) if e.source in ("images", "reference") and not e.dropped]
    if len(registered) < 2 or np.ptp(stack.focus_diopters[registered]) == 0.0:
        return None
    model = np.log(thin_lens.magnification(stack.focus_diopters[registered], stack.camera))
    found = np.array([estimates[i].motion.log_scale for i in registered])
    reference = next(k for k, i in enumerate(registered) if estimates[i].source == "reference")
    model, found = model - model[reference], found - found[reference]
    slope = float(model @ found) / float(model @ model)
    return Breathing(slope, abs(slope) * float(np.ptp(model)) * 0.5 * max(stack.size))
