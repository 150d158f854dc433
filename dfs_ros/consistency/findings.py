"""What a judgement of a stack finds: contradictions between images and description, and doubts about the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dfs_ros.config import ConfidenceConfig


@dataclass(frozen=True)
class Finding:
    """One finding about a stack.

    Parameters
    ----------
    cause
        Short name, the same for every stack with this fault, such as ``reversed`` or ``aperture``.
    text
        One line: what was found, what was expected, how to mend it.
    image
        Index, into the stack that came in, of the image it is about; None for the whole stack.
    contradiction
        True: depth of this stack cannot be trusted. False: a warning only.
    """

    cause: str
    text: str
    image: int | None = None
    contradiction: bool = True

    def report(self) -> dict[str, Any]:
        """Plain values for a report."""
        return {"cause": self.cause, "text": self.text, "image": self.image, "contradiction": self.contradiction}


Findings = tuple[Finding, ...]


def trusted(findings: Findings, config: ConfidenceConfig) -> bool:
    """Whether a stack with these findings may give depth."""
    return config.on_contradiction == "warn" or not any(finding.contradiction for finding in findings)
