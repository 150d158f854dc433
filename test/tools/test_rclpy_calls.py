"""Calls of rclpy against its sources, here a small stand-in of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import rclpy_calls

RCLPY = {
    "node.py": """
class Node:
    def __init__(self, name, *, context=None):
        self.executor = None
    def create_publisher(self, kind, topic, qos, *, callback_group=None): ...
    def destroy_node(self): ...
""",
    "qos_event.py": "class SubscriptionEventCallbacks: ...",
    "__init__.py": "def init(*, args=None, context=None): ...",
}


@pytest.fixture
def rclpy(tmp_path: Path) -> Path:
    folder = tmp_path / "rclpy"
    folder.mkdir()
    for name, text in RCLPY.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from rclpy.node import Node\nNode('a', context=None)", []),
        (
            "from rclpy.node import Node\nNode('a', enable_rosout=True)",
            ["rclpy takes no call Node('a', enable_rosout=True)"],
        ),
        ("from rclpy.node import Nodes", ["rclpy.node has no Nodes"]),
        ("node.create_publisher(kind, 'image', 5, callback_group=None)", []),
        (
            "node.create_publisher(kind, 'image', 5, None)",
            ["rclpy takes no call node.create_publisher(kind, 'image', 5, None)"],
        ),
        ("node.count_publishers('image')", ["rclpy has no count_publishers"]),
        ("if hasattr(node, 'count_publishers'):\n    node.count_publishers('image')", []),
        ("rclpy.init(args=[])\nnode.executor\nconfig.node.autostart\nother.anything(1)", []),
        (
            "try:\n    from rclpy.event_handler import SubscriptionEventCallbacks\n"
            "except ImportError:\n    from rclpy.qos_event import SubscriptionEventCallbacks",
            [],
        ),
        (
            "from rclpy.event_handler import SubscriptionEventCallbacks",
            ["rclpy.event_handler has no SubscriptionEventCallbacks"],
        ),
    ],
)
def test_what_does_not_fit(rclpy: Path, tmp_path: Path, code: str, found: list[str]) -> None:
    file = tmp_path / "ours.py"
    file.write_text(code)
    assert [line.split(": ", 1)[1] for line in rclpy_calls.problems(file, rclpy)] == found


def test_command_names_what_the_transport_needs(rclpy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rclpy_calls.main([str(rclpy)]) == 1
    assert "native.py:" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        rclpy_calls.main([str(rclpy.parent)])
