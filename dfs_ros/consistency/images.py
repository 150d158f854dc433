"""Find images that cannot belong to a stack as they are: repeated ones, clipped ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from dfs_ros.alignment.exposure import clipped_share, overexposed
from dfs_ros.consistency.findings import Finding
from dfs_ros.types import FocalStack

CLIPPED = 0.3
"""Share of clipped pixels from which a stack is over-exposed."""


def repeated_images(stack: FocalStack, kept: Sequence[int]) -> Iterator[Finding]:
    """Findings about images, of those `kept`, with the same pixels at different focus."""
    for i, j in itertools.combinations(kept, 2):
        first, second = stack.focus_diopters[[i, j]]
        if first != second and np.array_equal(stack.images[i], stack.images[j]):
            yield Finding(
                "repeated",
                f"image {j} is image {i} again, at {second:.3g} instead of {first:.3g} dioptres: expected an image of "
                "its own at each focus; leave one out, and check the driver for repeated frames",
                image=j,
            )


def exposure_findings(stack: FocalStack, kept: Sequence[int]) -> Iterator[Finding]:
    """Findings about clipped images of a stack as it came in, of which `kept` are used."""
    for i, reason in enumerate(overexposed(stack.images)):
        if reason and i in kept:
            yield Finding("exposure", f"image {i} is of little use: {reason}", image=i, contradiction=False)
    clipped = float(np.median([clipped_share(image) for image in stack.images]))
    if clipped > CLIPPED:
        yield Finding(
            "exposure",
            f"{clipped:.0%} of the pixels are clipped, expected at most {CLIPPED:.0%}: blur is wrong there; "
            "expose less",
            contradiction=False,
        )
