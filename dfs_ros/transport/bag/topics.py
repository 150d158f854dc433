"""Choice of the depth node's inputs in a bag, by name, type and neighbourhood."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise

from dfs_ros.config import Config
from dfs_ros.messages.convert import (
    CAMERA_INFO,
    COMPRESSED,
    DIAGNOSTICS,
    FOCUS,
    IMAGE,
    Message,
    focus_from_diagnostics,
)
from dfs_ros.messages.definitions import deserialize, type_store
from dfs_ros.messages.motion import IMU, TF
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.metadata import BagTopic, type_hash

_NOT_PHOTOS = ("/compressedDepth", "/theora", "/ffmpeg", "/zstd")
_PEEKED = 32  # messages of a topic that are searched for a second camera


@dataclass(frozen=True)
class ChosenTopics:
    """Inputs of the depth node in a bag, with matching remappings and configuration.

    `camera_info` None: the settings replace it; `focus` None: the focus is scheduled. `motion`: transforms and
    gyroscope, as far as there are.
    """

    image: BagTopic
    camera_info: BagTopic | None
    focus: BagTopic | None
    motion: tuple[BagTopic, ...]
    remappings: Mapping[str, str]
    config: Config

    @property
    def topics(self) -> list[BagTopic]:
        """All chosen topics."""
        return [topic for topic in (self.image, self.camera_info, self.focus, *self.motion) if topic is not None]


def choose_topics(
    bag: BagReader, resolve: Callable[[str], str], remappings: Mapping[str, str], config: Config
) -> ChosenTopics:
    """Choose the inputs of the depth node in a bag.

    Topics named by `remappings` must exist. The others are searched: the image that is alone of its type or has the
    name prefix of the only focus topic; `camera_info` and `focus` with the prefix of the image, or alone of their
    types and not of another camera. Without FrameFocus, camera_ros' LensPosition on /diagnostics is taken. Transforms
    are those of /tf and /tf_static, the gyroscope `imu` beside the image, or the only sensor_msgs/Imu.

    Parameters
    ----------
    resolve
        Function from a name such as `image` to the absolute name, after remapping.

    Raises ValueError, with a list of the bag's topics, if no topic or more than one fits.
    """
    return _Chooser(bag, resolve, remappings, config).choose()


class _Chooser:
    def __init__(
        self, bag: BagReader, resolve: Callable[[str], str], remappings: Mapping[str, str], config: Config
    ) -> None:
        self._bag = bag
        self._resolve = resolve
        self._named = remappings
        self._config = config

    def choose(self) -> ChosenTopics:
        image = self._image()
        _check_definition(image)
        beside = _folder(image.name.removesuffix("/compressed"))
        info = self._camera_info(beside, image)
        self._check_one_camera(image, info)
        focus, source = self._focus(beside)
        compressed = image.type_name == COMPRESSED
        changes = {"focus_source": source, "image_transport": "compressed" if compressed else "raw"}
        remappings = {name: target for name, target in self._named.items() if name != "image"}
        remappings["image/compressed" if compressed else "image"] = image.name
        if info is not None:
            remappings["camera_info"] = info.name
        if focus is not None and focus.type_name == FOCUS:
            remappings["focus"] = focus.name
        motion = [self._find(self._resolve(name), TF) for name in ("/tf", "/tf_static")]
        if (imu := self._by_name("imu", IMU, beside)) is not None:
            motion.append(imu)
            remappings["imu"] = imu.name
        found = tuple(topic for topic in motion if topic is not None)
        return ChosenTopics(image, info, focus, found, remappings, self._config.updated({"node": changes}))

    def _image(self) -> BagTopic:
        name = self._resolve("image")
        kinds = [(name, IMAGE), (f"{name}/compressed", COMPRESSED), (name, COMPRESSED)]
        if self._config.node.image_transport == "compressed":
            kinds = [*kinds[1:], kinds[0]]
        for wanted, type_name in kinds:
            if (found := self._find(wanted, type_name)) is not None:
                return found
        if "image" in self._named:
            raise self._missing(name, f"{IMAGE} or {COMPRESSED}")
        photos = self._of_type(IMAGE) or [t for t in self._of_type(COMPRESSED) if not t.name.endswith(_NOT_PHOTOS)]
        if not photos:
            raise self._error(f"no images ({IMAGE} or {COMPRESSED}) in it")
        if len(photos) > 1:
            photos = self._beside_the_focus(photos) or photos
        if len(photos) > 1:
            names = ", ".join(topic.name for topic in photos)
            raise self._error(f"more than one topic of images: {names}; say which, --remap image:={photos[0].name}")
        return photos[0]

    def _beside_the_focus(self, photos: list[BagTopic]) -> list[BagTopic]:
        focus = self._of_type(FOCUS)
        if len(focus) != 1:
            return []
        return [t for t in photos if _folder(t.name.removesuffix("/compressed")) == _folder(focus[0].name)]

    def _camera_info(self, beside: str, image: BagTopic) -> BagTopic | None:
        found = self._by_name("camera_info", CAMERA_INFO, beside)
        foreign = ""
        if found is not None and "camera_info" not in self._named and _folder(found.name) != beside:
            of_info, of_image = self._frame_ids(found), self._frame_ids(image)
            if of_info and of_image and not set(of_info) & set(of_image):
                foreign = (
                    f"; the only one, {found.name}, is of frame '{of_info[0]}', the images {image.name} of "
                    f"'{of_image[0]}': if it is of this camera, --remap camera_info:={found.name}"
                )
                found = None
        if found is None and not self._config.lens.pixel_pitch_m:
            raise self._error(
                f"no {CAMERA_INFO} that goes with the images{foreign}; say which, --remap camera_info:=TOPIC, or set "
                "lens.pixel_pitch_m"
            )
        return found

    def _check_one_camera(self, image: BagTopic, info: BagTopic | None) -> None:
        """Raise ValueError for messages of two cameras in turns on one topic."""
        for topic in filter(None, (image, info)):
            messages = self._peek(topic)
            if not messages:
                continue
            kinds = {"frames": [m.header.frame_id for m in messages]}
            if hasattr(messages[0], "height"):
                kinds["sizes"] = [f"{m.width} x {m.height}" for m in messages]
            if topic.type_name == CAMERA_INFO:
                # A lens that breathes has as many intrinsics as focus positions, and those in turns.
                intrinsics = [f"fx {m.k[0]:.1f} cx {m.k[2]:.1f} cy {m.k[5]:.1f}" for m in messages]
                kinds["intrinsics"] = intrinsics if len(set(intrinsics)) == 2 else []
            for what, values in kinds.items():
                if sum(a != b for a, b in pairwise(values)) > 2:
                    counts = ", ".join(f"{value} ({values.count(value)} times)" for value in dict.fromkeys(values))
                    raise self._error(
                        f"two cameras on {topic.name}: the first {len(values)} messages are of {what} {counts} in "
                        "turns; record each camera on topics of its own, or filter the bag by frame_id"
                    )

    def _frame_ids(self, topic: BagTopic) -> list[str]:
        return [m.header.frame_id for m in self._peek(topic) if m.header.frame_id]

    def _peek(self, topic: BagTopic) -> list[Message]:
        """First messages of a topic, without damaged ones."""
        found = []
        for message in islice(self._bag.messages([topic]), _PEEKED):
            with contextlib.suppress(ValueError):
                found.append(deserialize(message.data, topic.type_name))
        return found

    def _focus(self, beside: str) -> tuple[BagTopic | None, str]:
        """Topic of the focus, and the matching setting `node.focus_source`."""
        source = self._config.node.focus_source
        if source == "schedule":
            return None, source
        diagnostics = self._find("/diagnostics", DIAGNOSTICS)
        if source == "diagnostics":
            if diagnostics is None:
                raise self._missing("/diagnostics", DIAGNOSTICS)
            return diagnostics, source
        found = self._by_name("focus", FOCUS, beside)
        if found is not None:
            _check_definition(found)
            return found, source
        if source == "focus" and diagnostics is not None and self._tells_lens_position(diagnostics):
            return diagnostics, "diagnostics"
        raise self._error(
            f"nothing says where the lens was focused: no {FOCUS}, and no LensPosition on /diagnostics; say which "
            "topic, --remap focus:=TOPIC, or what was commanded, --set node.focus_source=schedule"
        )

    def _tells_lens_position(self, diagnostics: BagTopic) -> bool:
        # All nodes share the topic, so that any number of others' messages may come first.
        for message in self._bag.messages([diagnostics]):
            with contextlib.suppress(ValueError):
                named = b"LensPosition" in message.data
                if named and focus_from_diagnostics(deserialize(message.data, DIAGNOSTICS)) is not None:
                    return True
        return False

    def _by_name(self, name: str, type_name: str, beside: str) -> BagTopic | None:
        """Topic by remapping, by prefix `beside`, by the node's own name, or as the only one."""
        resolved = self._resolve(name)
        if name in self._named:
            if (found := self._find(resolved, type_name)) is None:
                raise self._missing(resolved, type_name)
            return found
        for candidate in (f"{beside}/{name}", resolved):
            if (found := self._find(candidate, type_name)) is not None:
                return found
        every = self._of_type(type_name)
        return every[0] if len(every) == 1 else None

    def _find(self, name: str, type_name: str) -> BagTopic | None:
        return next((t for t in self._of_type(type_name) if t.name == name), None)

    def _of_type(self, type_name: str) -> list[BagTopic]:
        return [t for t in self._bag.topics if t.type_name == type_name and t.messages]

    def _missing(self, name: str, type_name: str) -> ValueError:
        return self._error(f"expected {type_name} on {name}, and there is none")

    def _error(self, what: str) -> ValueError:
        return ValueError(f"bag {self._bag.path}: {what}. Topics in the bag:\n{self._bag.listing()}")


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _check_definition(topic: BagTopic) -> None:
    """Raise ValueError if the bag's messages have other fields than those of this package."""
    recorded = type_hash(topic)
    ours = type_store().hash_rihs01(topic.type_name)
    if recorded and recorded != ours:
        raise ValueError(
            f"{topic.name}: its {topic.type_name} was recorded with another definition than this package has "
            f"(type hash {recorded}, expected {ours})"
        )
