"""YAML from outside: bounded, and every error a ValueError."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfs_ros.config import Config, plain_yaml, read_yaml
from dfs_ros.config.setting import MAX_YAML_BYTES

LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    "text",
    ["!!bool x", "!!int ''", "!!timestamp x", "!!python/object/apply:os.abort []", "a\0b", "[" * 5000, "{[", "*a"],
)
def test_any_error_of_the_parser_is_a_value_error(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        plain_yaml(text)
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"^configuration .*settings.yaml: not readable as YAML: ."):
        Config.load(file)


@pytest.mark.parametrize("text", [LAUGHS, "a: &a [*a]"])
def test_aliases_are_expanded_up_to_a_limit(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected at most 100000 values, received .* aliases expanded"):
        plain_yaml(text)
    assert plain_yaml("a: &a [1, 2]\nb: *a") == {"a": [1, 2], "b": [1, 2]}


def test_large_files_are_refused_before_they_are_read(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as stream:
        stream.truncate(MAX_YAML_BYTES + 1)
    with pytest.raises(ValueError, match="large: expected at most 1048576 bytes, received 1048577"):
        read_yaml(file, "large")
