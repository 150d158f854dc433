"""Names as ROS resolves and remaps them."""

from __future__ import annotations

import pytest

from dfs_ros.transport.local import LocalTransport
from dfs_ros.transport.names import parse_remappings, resolve_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [("image", "/robot/image"), ("a/b", "/robot/a/b"), ("/image", "/image"), ("~/capture", "/robot/dfs/capture")],
)
def test_names_resolve_as_in_ros(name, expected):
    assert resolve_name(name, "dfs", "/robot") == expected
    assert LocalTransport("dfs", namespace="robot/").resolve(name) == expected


def test_names_in_the_root_namespace():
    assert [resolve_name(n, "dfs", "/") for n in ("image", "~/capture")] == ["/image", "/dfs/capture"]
    assert LocalTransport("dfs").full_name == "/dfs"
    assert LocalTransport("dfs", namespace="/a/b").full_name == "/a/b/dfs"


def test_remapping_by_written_or_absolute_name():
    by_written = parse_remappings(["image:=/camera/image_raw", "~/capture:=shoot"])
    assert resolve_name("image", "dfs", "/robot", by_written) == "/camera/image_raw"
    assert resolve_name("/robot/image", "dfs", "/robot", by_written) == "/camera/image_raw"
    assert resolve_name("~/capture", "dfs", "/robot", by_written) == "/robot/shoot"
    assert resolve_name("focus", "dfs", "/robot", {"/robot/focus": "lens"}) == "/robot/lens"
    for wrong in ("image", "image:=", ":=image"):
        with pytest.raises(ValueError, match="FROM:=TO"):
            parse_remappings([wrong])


@pytest.mark.parametrize("name", ["", "/", "a b", "a//b", "1a", "a/", "a-b", "a__b", "~", "bäh", "a\n"])
def test_names_that_ros_does_not_allow_are_refused(name):
    with pytest.raises(ValueError, match="name: expected"):
        resolve_name(name, "dfs", "/")
    with pytest.raises(ValueError, match="node name: expected"):
        LocalTransport("a/" + name)
