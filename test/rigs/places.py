"""Folders that tests read from."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RIGS = ROOT / "test" / "rigs"
DATA = ROOT.parent / "shared" / "data"
"""Real stacks and goldens beside the repository; a test that needs them skips where they are absent."""
