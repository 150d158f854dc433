"""docs/nodes: pages of what the nodes open when they run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import ROOT

from tools import node_pages
from tools.node_pages import NODES, page, pages, topics

FOLDER = ROOT / "docs" / "nodes"


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def test_pages_in_the_repository_are_up_to_date(made: dict[str, str]) -> None:
    assert sorted(made) == sorted(file.name for file in FOLDER.iterdir())
    for name, text in made.items():
        assert (FOLDER / name).read_text() == text, f"{name}: run `python -m tools.node_pages`"


def test_a_page_follows_the_code(made: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, outputs, services = topics(NODES["depth_node"])
    compressed = next(each for each in inputs if each.name == "image/compressed")
    assert (compressed.type_name, compressed.setting) == (
        "sensor_msgs/msg/CompressedImage",
        "node.image_transport=compressed",
    )
    assert ("~/capture", "std_srvs/srv/Trigger") in services
    assert {"depth/image", "~/odometry", "/diagnostics"} <= {each.name for each in outputs}
    monkeypatch.setattr(node_pages, "CONTENT", {"depth/image": "Depth"})
    with pytest.raises(ValueError, match=r"image: has no text in tools/node_texts\.py"):
        page(NODES["depth_node"], {})


def test_a_running_node_has_the_values_of_its_page(made: dict[str, str]) -> None:
    text = made["depth_node.md"]
    assert {"latency_s", "share_with_depth", "seconds STEP", "TOPIC received", "used"} <= set(
        re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)
    )
    assert "| `hypotheses.count` | `" in text and "| `node.silence_s` | `3.0` |" in text


def test_command_writes_the_pages(made: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_pages, "pages", lambda: made)
    assert node_pages.main([str(tmp_path)]) == 0
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == made
