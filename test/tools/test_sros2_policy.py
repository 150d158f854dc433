"""config/sros2_policy.xml gives the native nodes what they open, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from xml.etree import ElementTree

import pytest
from places import ROOT

from dfs_ros.config import Config
from dfs_ros.node.outputs import TOPICS
from tools import sros2_policy
from tools.sros2_policy import FILE_NAME, policy

FILE = ROOT / "config" / FILE_NAME
CONFIG = Config.from_dict({"network": {"name": "none"}})


def rights(text: str, enclave: str) -> dict[str, set[str]]:
    """Names by right of an enclave."""
    profile = ElementTree.fromstring(text.encode()).find(f"enclaves/enclave[@path='{enclave}']/profiles/profile")
    assert profile is not None
    return {right: {str(each.text) for each in group} for group in profile for right in group.attrib}


def test_file_in_the_repository_is_up_to_date() -> None:
    assert FILE.read_text() == policy(CONFIG), "run `python -m tools.sros2_policy`"


def test_the_depth_node_may_do_what_it_does_and_no_more() -> None:
    found = rights(FILE.read_text(), "/dfs")
    own = {f"/{topic}" for topic in TOPICS}
    assert found["publish"] == own | {"/diagnostics", "/parameter_events", "/rosout", "/dfs/transition_event"}
    motion = {"/tf", "/tf_static", "/imu"}
    assert found["subscribe"] == {"/image", "/camera_info", "/focus", "/clock", "/parameter_events"} | motion
    assert all(name.startswith("/dfs/") for name in found["reply"]) and "/dfs/capture" in found["reply"]
    assert "request" not in found and "*" not in FILE.read_text()


def test_settings_and_namespace_decide(tmp_path: Path) -> None:
    file = tmp_path / "policy.xml"
    arguments = ["--output", str(file), "--namespace", "/robot", "--set", "node.focus_source=diagnostics"]
    assert sros2_policy.main([*arguments, "--set", "node.image_transport=compressed"]) == 0
    found = rights(file.read_text(), "/robot/dfs")
    inputs = {"/robot/image/compressed", "/robot/camera_info", "/diagnostics", "/tf", "/tf_static", "/robot/imu"}
    assert found["subscribe"] == inputs | {"/clock", "/parameter_events"}
    assert "/robot/image" in rights(file.read_text(), "/robot/dfs_camera")["publish"]


def test_file_fits_the_schema_of_sros2() -> None:
    etree = pytest.importorskip("lxml.etree", reason="lxml, with which sros2 checks its schema, is not installed")
    found = importlib.util.find_spec("sros2")
    if found is None or found.origin is None:
        pytest.skip("sros2 is not installed, or its setup file is not sourced")
    schema_file = Path(found.origin).parent / "policy" / "schemas" / "policy.xsd"
    # Its one import is of a schema on the network, for an attribute that this file does not have.
    lines = schema_file.read_text().replace('<xs:attribute ref="xml:base" />', "")
    tree = etree.fromstring(lines.encode())
    for each in tree.findall("{http://www.w3.org/2001/XMLSchema}import"):
        tree.remove(each)
    schema = etree.XMLSchema(tree)
    schema.assertValid(etree.parse(str(FILE)))
    with pytest.raises(etree.DocumentInvalid):
        schema.assertValid(etree.fromstring(FILE.read_bytes().replace(b'publish="ALLOW"', b'publish="MAYBE"')))
