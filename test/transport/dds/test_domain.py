"""Which DDS domain a node joins and whom it discovers there: settings and environment as in ROS."""

from __future__ import annotations

import os

import pytest

from dfs_ros.config import DdsConfig
from dfs_ros.transport.dds.domain import discovery, domain_id, domain_xml, is_closed


def test_domain_id_comes_from_settings_then_environment():
    assert domain_id(DdsConfig(), {}) == 0
    assert domain_id(DdsConfig(), {"ROS_DOMAIN_ID": "42"}) == 42
    assert domain_id(DdsConfig(domain_id=7), {"ROS_DOMAIN_ID": "42"}) == 7
    for wrong in ("x", "-1", "233", "4.2"):
        with pytest.raises(ValueError, match=f"ROS_DOMAIN_ID: expected a number from 0 to 232, received '{wrong}'"):
            domain_id(DdsConfig(), {"ROS_DOMAIN_ID": wrong})


@pytest.mark.parametrize(
    ("settings", "environment", "expected"),
    [
        ({}, {}, ("localhost", ())),
        ({}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, ("subnet", ())),
        ({}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF"}, ("off", ())),
        ({"discovery_range": "localhost"}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, ("localhost", ())),
        ({}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET", "ROS_LOCALHOST_ONLY": "1"}, ("localhost", (), ())),
        ({"static_peers": "a"}, {"ROS_STATIC_PEERS": "b", "ROS_LOCALHOST_ONLY": "1"}, ("localhost", (), ("a", "b"))),
        ({}, {"ROS_STATIC_PEERS": "10.0.0.2;robot.local"}, ("localhost", ("10.0.0.2", "robot.local"))),
        ({"static_peers": " a ;"}, {"ROS_STATIC_PEERS": "b"}, ("localhost", ("a", "b"))),
    ],
)
def test_discovery_range_as_in_ros(settings, environment, expected):
    assert discovery(DdsConfig(**settings), environment) == (*expected, ())[:3]


@pytest.mark.parametrize(
    ("settings", "environment", "closed"),
    [
        ({}, {}, True),
        ({}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, False),
        ({"discovery_range": "subnet"}, {"ROS_LOCALHOST_ONLY": "1"}, False),
        ({"static_peers": "robot.local"}, {}, False),
        ({"static_peers": "robot.local"}, {"ROS_LOCALHOST_ONLY": "1"}, True),
        ({"interface": "eth0"}, {}, True),
        ({}, {"CYCLONEDDS_URI": "file:///etc/dds.xml"}, False),
        ({"discovery_range": "off", "static_peers": "robot.local"}, {}, True),
    ],
)
def test_the_domain_is_closed_to_other_hosts_unless_told_otherwise(settings, environment, closed):
    config = DdsConfig(**settings)
    assert is_closed(config, environment) == closed


def test_unknown_discovery_range_is_refused():
    with pytest.raises(ValueError, match="expected one of LOCALHOST, SUBNET, OFF, SYSTEM_DEFAULT, received 'NEAR'"):
        discovery(DdsConfig(), {"ROS_AUTOMATIC_DISCOVERY_RANGE": "NEAR"})


def test_domain_configuration():
    from xml.etree import ElementTree

    def parsed(config: DdsConfig, **environment: str) -> ElementTree.Element:
        xml, _, uri = domain_xml(config, environment).rpartition(",")
        assert uri == environment.get("CYCLONEDDS_URI", "")
        return ElementTree.fromstring(xml).find("Domain")

    closed = parsed(DdsConfig(), CYCLONEDDS_URI="file:///etc/dds.xml")
    assert closed.findtext("General/AllowMulticast") == "false"
    assert [p.get("address") for p in closed.findall("Discovery/Peers/Peer")] == ["localhost"]
    assert (closed.findtext("General/MaxMessageSize"), closed.findtext("General/FragmentSize")) == ("65500B", "65400B")
    assert closed.find("Internal/SocketReceiveBufferSize").get("max") == "16777216B"
    assert closed.find("General/Interfaces") is None
    wide = parsed(DdsConfig(discovery_range="subnet", static_peers='a"<b'))
    assert wide.find("General/AllowMulticast") is None
    assert [p.get("address") for p in wide.findall("Discovery/Peers/Peer")] == ['a"<b']
    off = parsed(DdsConfig(discovery_range="off", static_peers="a"))
    assert off.find("Discovery/Peers") is None and str(os.getpid()) in off.findtext("Discovery/Tag")
    assert parsed(DdsConfig(discovery_range="system_default")).find("Discovery") is None
    for interface, kind in (("lo", "name"), ("10.0.0.1", "address"), ("fe80::1", "address")):
        assert parsed(DdsConfig(interface=interface)).find("General/Interfaces/NetworkInterface").get(kind) == interface


@pytest.mark.parametrize(
    ("settings", "environment", "packet_bytes"),
    [
        ({}, {}, 65500),
        ({}, {"ROS_STATIC_PEERS": "10.0.0.2"}, 1400),  # one Ethernet frame, no IP fragments
        ({}, {"ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET"}, 1400),
        ({"max_message_bytes": 8000}, {"ROS_STATIC_PEERS": "10.0.0.2"}, 8000),
        ({"max_message_bytes": 100}, {}, 1400),
    ],
)
def test_packets_between_hosts_are_no_larger_than_a_frame(settings, environment, packet_bytes):
    xml = domain_xml(DdsConfig(**settings), environment)
    assert f"<MaxMessageSize>{packet_bytes}B</MaxMessageSize><FragmentSize>{packet_bytes - 100}B</FragmentSize>" in xml
