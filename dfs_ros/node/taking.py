"""Taking of one focal stack from a camera or a bag to disk, without depth."""

from __future__ import annotations

from concurrent.futures import Future
from functools import partial
from pathlib import Path

from dfs_ros.config import Config
from dfs_ros.io.stack_folder import save_stack
from dfs_ros.messages.convert import Message, trigger_response
from dfs_ros.node.capture import stack_of
from dfs_ros.node.depth_node import DepthNode
from dfs_ros.node.lens import LensError
from dfs_ros.node.motion import Poses
from dfs_ros.stacks.assembler import FrameStack
from dfs_ros.transport.bag.files import BagReader
from dfs_ros.transport.bag.topics import choose_topics
from dfs_ros.transport.bag.transport import BagTransport
from dfs_ros.transport.base import Transport
from dfs_ros.transport.names import resolve_name
from dfs_ros.types import Camera

NODE_NAME = "dfs_capture"


class StackTaker(DepthNode):
    """Depth node that computes no depth, but writes its next whole stack into a new folder.

    `answer`: its path, or the reason why there is none; done once the folder is there. `midway`: the camera sweeps
    already, so that the first sweep seen may be a part of one.
    """

    def __init__(self, transport: Transport, output: Path, midway: bool = False) -> None:
        super().__init__(transport, inline=True)
        self._output = output
        self._begun = not midway
        self.answer: Future[Message] = self._next.ask(transport.steady_ns())
        self.activate()

    def path(self) -> Path:
        """Folder of the stack, after its answer. Raises ValueError with the reason if there is none."""
        answer = self.answer.result() if self.answer.done() else trigger_response(False, "no whole focus sweep came")
        if not answer.success:
            raise ValueError(f"no stack: {answer.message}")
        return Path(answer.message)

    def _load_estimator(self) -> None:
        pass

    def _on_image(self, msg: Message) -> None:
        super()._on_image(msg)
        self._begun = True  # the first image was ignored: the next ones may lie within a sweep

    def _is_wanted(self) -> bool:
        return self._begun and super()._is_wanted()

    def _write(self, taken: FrameStack) -> Message | Future[Message]:
        try:
            camera = self._lens.camera_of(taken.frames)
        except LensError as error:
            return trigger_response(False, str(error))
        answer: Future[Message] = Future()
        self._ask_for_poses(taken, lambda poses: answer.set_result(self._saved(taken, camera, poses)))
        return answer

    def _saved(self, taken: FrameStack, camera: Camera, poses: Poses) -> Message:
        try:
            return trigger_response(True, str(save_stack(stack_of(taken, camera, poses), self._output)))
        except (ValueError, OSError) as error:
            return trigger_response(False, str(error))


def take_from_bag(bag: Path, output: Path, config: Config) -> Path:
    """Write the first whole stack of a bag into a new folder; return it.

    Raises FileNotFoundError or ValueError for a bag without one.
    """
    with BagReader(bag) as reader:
        resolve = partial(resolve_name, node_name=NODE_NAME, namespace="/", remappings={})
        chosen = choose_topics(reader, resolve, {}, config)
        names, start_ns = chosen.remappings, reader.start_ns
        with (
            BagTransport(NODE_NAME, None, start_ns, remappings=names, config=chosen.config) as transport,
            StackTaker(transport, output) as taker,
        ):
            for message in reader.messages(chosen.topics):
                transport.play(message)
                if taker.answer.done():
                    break
            else:
                taker.finish()
            return taker.path()
