"""Configuration of Cyclone DDS: domain, discovery, buffers, like rmw_cyclonedds.

The settings of :class:`~dfs_ros.config.DdsConfig` override ROS_DOMAIN_ID, ROS_AUTOMATIC_DISCOVERY_RANGE and
ROS_LOCALHOST_ONLY; static peers are those of the settings and of ROS_STATIC_PEERS; CYCLONEDDS_URI overrides all. By
default discovery is limited to this host, and finds its ROS nodes whatever their own range; the sockets then take
no packet from other hosts, so that these stay unknown and get none.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

from dfs_ros.config import DdsConfig
from dfs_ros.transport.base import TransportError
from dfs_ros.transport.dds.this_host import made_for_this_host

RANGES = ("localhost", "subnet", "off", "system_default")
# As in rmw_cyclonedds: number of processes on one host that find each other without multicast.
MAX_PARTICIPANT_INDEX = 32
ANNOUNCE_S = 2
_WITHIN_HOST_BYTES, _ETHERNET_BYTES = 65500, 1400
_HEADER_BYTES = 100


class Discovery(NamedTuple):
    """Discovery: one of :data:`RANGES`, further hosts, and those that ROS_LOCALHOST_ONLY excludes."""

    range: str
    static_peers: tuple[str, ...]
    excluded: tuple[str, ...] = ()

    @property
    def on_this_host(self) -> bool:
        """True if no other host takes part."""
        return self.range == "off" or (self.range == "localhost" and not self.static_peers)


def domain_id(config: DdsConfig, environment: Mapping[str, str] = os.environ) -> int:
    """Number of the ROS domain, 0 to 232; ValueError for an invalid ROS_DOMAIN_ID."""
    if config.domain_id >= 0:
        return config.domain_id
    text = environment.get("ROS_DOMAIN_ID", "").strip() or "0"
    if not (text.isdecimal() and int(text) <= 232):
        raise ValueError(f"ROS_DOMAIN_ID: expected a number from 0 to 232, received {text!r}")
    return int(text)


def discovery(config: DdsConfig, environment: Mapping[str, str] = os.environ) -> Discovery:
    """Range and peers of discovery; ValueError for an invalid ROS_AUTOMATIC_DISCOVERY_RANGE."""
    chosen = config.discovery_range
    if chosen == "auto":
        named = environment.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "").strip()
        chosen = named.lower() or "localhost"
        if chosen not in RANGES:
            known = ", ".join(RANGES).upper()
            raise ValueError(f"ROS_AUTOMATIC_DISCOVERY_RANGE: expected one of {known}, received {named!r}")
    texts = f"{config.static_peers};{environment.get('ROS_STATIC_PEERS', '')}".split(";")
    peers = tuple(peer.strip() for peer in texts if peer.strip())
    if config.discovery_range == "auto" and environment.get("ROS_LOCALHOST_ONLY", "").strip() == "1":
        return Discovery("localhost", (), peers)
    return Discovery(chosen, peers)


def domain_xml(config: DdsConfig, environment: Mapping[str, str] = os.environ) -> str:
    """XML of the Cyclone DDS domain; CYCLONEDDS_URI comes last and so prevails."""
    who = discovery(config, environment)
    packets, buffers = _sizes(config, environment)
    general = [packets]
    if who.range in ("localhost", "off"):
        general.append("<AllowMulticast>false</AllowMulticast>")
    if config.interface:
        kind = "address" if config.interface.replace(".", "").isdecimal() or ":" in config.interface else "name"
        general.append(f"<Interfaces><NetworkInterface {kind}={quoteattr(config.interface)}/></Interfaces>")
    return (
        f"<CycloneDDS><Domain><General>{''.join(general)}</General>{_discovery_xml(who)}"
        f"{buffers}</Domain></CycloneDDS>,{environment.get('CYCLONEDDS_URI', '')}"
    )


def is_closed(config: DdsConfig, environment: Mapping[str, str] = os.environ) -> bool:
    """True if the domain is closed to other hosts: discovery is limited to this one, without CYCLONEDDS_URI."""
    return discovery(config, environment).on_this_host and not environment.get("CYCLONEDDS_URI", "").strip()


def large_messages_xml(config: DdsConfig, environment: Mapping[str, str] = os.environ) -> str:
    """XML for a Cyclone DDS domain made by ROS, to carry large images.

    Without it most 1080p images are lost.
    """
    packets, buffers = _sizes(config, environment)
    return f"<CycloneDDS><Domain><General>{packets}</General>{buffers}</Domain></CycloneDDS>"


def _sizes(config: DdsConfig, environment: Mapping[str, str]) -> tuple[str, str]:
    # A system keeps the fragments of packets that it cannot complete for half a minute, in 4 MB: at 1 % loss, the
    # raw images of 65 kB packets fill that within seconds, and from then on no packet at all is completed.
    automatic = _WITHIN_HOST_BYTES if discovery(config, environment).on_this_host else _ETHERNET_BYTES
    largest = max(config.max_message_bytes or automatic, _ETHERNET_BYTES)
    packets = f"<MaxMessageSize>{largest}B</MaxMessageSize><FragmentSize>{largest - _HEADER_BYTES}B</FragmentSize>"
    size = f'<SocketReceiveBufferSize max="{config.receive_buffer_bytes}B"/>'
    return packets, f"<Internal>{size}</Internal>"


def _discovery_xml(who: Discovery) -> str:
    if who.range == "system_default":
        return ""
    if who.range == "off":
        # A unique tag isolates this process.
        tag = f"ros_discovery_off_{os.getpid()}"
        return f"<Discovery><ParticipantIndex>none</ParticipantIndex><Tag>{tag}</Tag></Discovery>"
    peers = (("localhost",) if who.range == "localhost" else ()) + who.static_peers
    items = [
        "<ParticipantIndex>auto</ParticipantIndex>",
        f"<MaxAutoParticipantIndex>{MAX_PARTICIPANT_INDEX}</MaxAutoParticipantIndex>",
        # Cyclone DDS 11 forgets a peer that does not answer within 30 s; it may start later.
        "<InitialLocatorPruneDelay>inf</InitialLocatorPruneDelay>",
    ]
    if peers:
        items.append("<Peers>" + "".join(f"<Peer address={quoteattr(peer)}/>" for peer in peers) + "</Peers>")
    if who.range == "localhost":
        # A ROS node of this host with the range subnet sends to no peers: frequent announcements to it reveal it.
        items.append(f"<SPDPInterval>{ANNOUNCE_S} s</SPDPInterval>")
    return f"<Discovery>{''.join(items)}</Discovery>"


class SharedDomain:
    """Cyclone DDS domain of this process, shared by its nodes.

    DDS has one domain for each number, with one configuration.
    """

    _open: dict[int, SharedDomain] = {}  # noqa: RUF012
    _lock = threading.Lock()

    def __init__(self, number: int, xml: str, closed: bool) -> None:
        from cyclonedds.domain import Domain

        self.number = number
        self.xml = xml
        self._users = 0
        self._domain: Any = None
        self.leaks = False
        """True if the domain should be closed to other hosts, but this system cannot close it."""
        if closed:
            self._domain, limited = made_for_this_host(lambda: Domain(number, xml))
            self.leaks = not limited
        else:
            self._domain = Domain(number, xml)

    @classmethod
    def acquire(cls, config: DdsConfig) -> SharedDomain:
        """Domain of a configuration, to be returned by :meth:`release`."""
        number, xml = domain_id(config), domain_xml(config)
        with cls._lock:
            domain = cls._open.get(number)
            if domain is None:
                domain = cls._open[number] = _create(number, xml, is_closed(config))
            elif domain.xml != xml:
                raise TransportError(
                    f"DDS domain {number} is open in this process with other settings; the nodes of one process share "
                    "the settings of section dds, or use different domains"
                )
            domain._users += 1
        return domain

    def release(self) -> None:
        """Close the domain after its last user."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._open.pop(self.number)
                self._domain = None  # Cyclone's wrapper deletes unreferenced entities


def _create(number: int, xml: str, closed: bool) -> SharedDomain:
    from cyclonedds.core import DDSException

    try:
        return SharedDomain(number, xml, closed)
    except (DDSException, UnicodeEncodeError) as error:
        raise TransportError(
            f"DDS domain {number} cannot be opened: {error}; check the settings of section dds (interface, "
            "static_peers), CYCLONEDDS_URI, and that this machine has a network interface"
        ) from error
