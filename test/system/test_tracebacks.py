"""An error that is reported in one sentence leaves its traceback at level debug, wherever it was caught."""

from __future__ import annotations

import ast
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from node_rig import Rig
from places import ROOT

from dfs_ros.cli.main import main
from dfs_ros.cli.native import _python_log_to
from dfs_ros.estimator.estimator import DepthEstimator
from dfs_ros.messages.definitions import message
from dfs_ros.node import capture
from dfs_ros.system.tracebacks import keep_traceback
from dfs_ros.transport.local import LocalTransport


def the_cause() -> None:
    raise RuntimeError("the lens fell off")


def check_record(log: pytest.LogCaptureFixture, sentence: str, level: int = logging.ERROR) -> None:
    """One line with the sentence alone at `level`; at level debug, the traceback with the place of the cause."""
    told = [record for record in log.records if record.levelno >= level]
    assert [record.getMessage() for record in told] == [sentence]
    assert told[0].exc_info is None and "Traceback" not in told[0].getMessage()
    formatter = logging.Formatter()
    kept = [formatter.format(record) for record in log.records if record.levelno == logging.DEBUG]
    assert any("Traceback" in text and "in the_cause" in text and "the lens fell off" in text for text in kept)


def test_an_estimator_that_fails(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "dfs_ros")
    monkeypatch.setattr(DepthEstimator, "estimate", lambda *arguments, **options: the_cause())
    rig = make_rig()
    rig.listen("depth/image")
    rig.send_sweep()
    check_record(caplog, "no depth of this stack: the lens fell off")
    text = rig.status()[1]
    assert "RuntimeError: the lens fell off" in text and "Traceback" not in text
    rig.send_sweep()  # within 5 s: not told again
    assert sum("Traceback" in record.getMessage() for record in caplog.records) == 1


def test_a_capture_that_fails(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "dfs_ros")
    monkeypatch.setattr(capture, "save_stack", lambda *arguments: the_cause())
    rig = make_rig()
    answer = rig.node._capture(None)
    rig.send_sweep()
    assert answer.result(20).message == "the lens fell off"
    rig.node.close()
    check_record(caplog, "nothing captured: the lens fell off")


def test_a_callback_that_refuses_its_message(caplog: pytest.LogCaptureFixture) -> None:
    def refuse(msg: Any) -> None:
        try:
            the_cause()
        except RuntimeError as error:
            raise ValueError("expected a lens, received none") from error

    caplog.set_level(logging.DEBUG, "dfs_ros")
    with LocalTransport("talker") as talker:
        talker.create_subscription("number", "std_msgs/msg/Int32", refuse)
        talker.create_publisher("number", "std_msgs/msg/Int32").publish(message("std_msgs/msg/Int32", data=1))
        while talker.spin_once(0):
            pass
    check_record(caplog, "/number: message refused: expected a lens, received none")


def test_a_command_that_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG, "dfs_ros")  # sets the level back at the end
    missing = ["estimate", str(tmp_path / "nothing"), "--output", str(tmp_path / "out")]
    for level, tracebacks in (("INFO", 0), ("debug", 1)):
        monkeypatch.setenv("DFS_LOG_LEVEL", level)
        caplog.clear()
        assert main(missing) == 2
        assert len([record for record in caplog.records if record.exc_info]) == tracebacks
        assert capsys.readouterr().err.startswith("dfs estimate: error: ")
    monkeypatch.setenv("DFS_LOG_LEVEL", "loud")
    assert main(missing) == 2
    expected = "DFS_LOG_LEVEL: expected one of DEBUG, INFO, WARNING, ERROR, received 'LOUD'"
    assert expected in capsys.readouterr().err


def test_native_nodes_forward_tracebacks_at_level_debug() -> None:
    lines: list[tuple[str, str]] = []
    with LocalTransport("node") as transport:
        transport.log = lambda level, text: lines.append((level, text))  # type: ignore[assignment,misc]
        with _python_log_to(transport):
            try:
                the_cause()
            except RuntimeError as error:
                keep_traceback(error)
    ((level, text),) = lines
    assert level == "debug"
    assert text.startswith("RuntimeError('the lens fell off')\nTraceback") and "in the_cause" in text


# -- in the source -----------------------------------------------------------------------------------------------------

TELL = {"debug", "info", "warning", "error", "critical", "log", "_log", "print"}
KEEP = {"keep_traceback", "exception", "set_exception"}
# These hand the exception itself on, to who raises it.
HANDED_ON = {
    "dfs_ros/camera/sweeper.py": "self._transport.end(error)",
    "dfs_ros/cli/capture.py": "answers.append(error)",
    "dfs_ros/network/runners/tensorrt.py": "self.stopped = error",
    "dfs_ros/node/worker.py": "self._on_failure(error)",
    "dfs_ros/transport/guard.py": "self._drop(place, counts, error)",
    "dfs_ros/transport/ros/lifecycle.py": "self._transport.end(error)",
}


def handlers(text: str) -> Iterator[ast.ExceptHandler]:
    return (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ExceptHandler))


def loses_the_traceback(handler: ast.ExceptHandler) -> bool:
    """Whether it catches everything and does not raise, or reports the exception as text, and keeps no traceback."""
    calls = [node for node in ast.walk(handler) if isinstance(node, ast.Call)]

    def name(call: ast.Call) -> str:
        return str(getattr(call.func, "attr", getattr(call.func, "id", "")))

    if any(name(call) in KEEP or {"exc_info", "error"} & {k.arg for k in call.keywords} for call in calls):
        return False
    catches_all = handler.type is None or ast.unparse(handler.type) in ("Exception", "BaseException")
    raises = any(isinstance(node, ast.Raise) for node in ast.walk(handler))
    named = {node: node.id for node in ast.walk(handler) if isinstance(node, ast.Name)}
    mentions = [
        call for call in calls if any(named.get(node) == handler.name for node in ast.walk(call) if node in named)
    ]
    return (catches_all and not raises) or any(name(call) in TELL for call in mentions)


def test_no_handler_loses_the_traceback() -> None:
    wrong = []
    for file in sorted((ROOT / "dfs_ros").rglob("*.py")):
        place = str(file.relative_to(ROOT))
        for handler in handlers(file.read_text()):
            handed_on = HANDED_ON.get(place, "\0") in ast.unparse(handler)
            if loses_the_traceback(handler) and not handed_on:
                wrong.append(f"{place}:{handler.lineno}: keep_traceback(error), or log(..., error=error)")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("body", "loses"),
    [
        ("except Exception: pass", True),
        ("except: pass", True),
        ("except Exception as error: text = str(error)", True),
        ("except ValueError as error: transport.log('error', f'no: {error}')", True),
        ("except OSError as error: _log.warning('no: %s', error)", True),
        ("except ValueError as error: reason = str(error)", False),
        ("except Exception as error: raise ValueError(str(error)) from error", False),
        ("except Exception as error:\n    keep_traceback(error)\n    text = str(error)", False),
        ("except ValueError as error: transport.log('error', f'no: {error}', error=error)", False),
        ("except Exception: log.exception('no')", False),
    ],
)
def test_the_check_of_handlers_tells_good_from_bad(body: str, loses: bool) -> None:
    (handler,) = handlers(f"try:\n    f()\n{body}")
    assert loses_the_traceback(handler) == loses
