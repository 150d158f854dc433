"""Requirements of which wheels are looked for; the look itself needs a network."""

from __future__ import annotations

import pytest

from tools import wheels


def test_requirements_are_those_of_setup() -> None:
    found = wheels.requirements().splitlines()
    assert "torch>=2.1" in found and 'cyclonedds>=11; platform_machine == "x86_64"' in found
    assert "h5py>=3.8" in found and not [line for line in found if line.startswith(("pytest", "ruff"))]


def test_without_uv_it_says_what_it_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "")
    assert wheels.main([]) == 2
    assert capsys.readouterr().err == "wheels: error: needs uv: `pip install uv`\n"
