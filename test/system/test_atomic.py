"""Files and folders that appear whole or not at all, on the disk before they have their name."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from dfs_ros.system import atomic, staging
from dfs_ros.system.atomic import atomic_file, set_aside, staged, write_atomically
from dfs_ros.system.staging import Staging, exchange


def contents(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_an_interrupted_file_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    write_atomically(file, b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(file) as partial:
        partial.write_bytes(b"ne")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [file] and file.read_bytes() == b"old"
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "file", b"content")
    write_atomically(file, b"new")
    assert list(tmp_path.iterdir()) == [file] and file.read_bytes() == b"new"


def test_content_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[tuple[str, bool]] = []
    fsync = os.fsync

    def recorded(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        named = (tmp_path / "file").exists() or (tmp_path / "folder" / "b").exists()
        flushed.append((str(path.relative_to(tmp_path)).partition("part/")[2], named))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    write_atomically(tmp_path / "file", b"content")
    assert flushed == [("file", False), ("", True)]  # the content, then the folder above
    (tmp_path / "file").unlink()
    flushed.clear()
    with staged(tmp_path / "folder", last="b") as folder:
        for name in ("a", "b"):
            (folder / name).write_bytes(b"content")
    assert sorted(flushed[:2]) == [("folder/a", False), ("folder/b", False)]
    assert flushed[2:] == [("folder", False), ("", True)]


@pytest.mark.parametrize("possible", [True, False], ids=["exchange", "file by file"])
def test_new_files_replace_older_ones_and_others_stay(
    tmp_path: Path, possible: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not possible:
        monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    folder = tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "link").symlink_to("mark")
    for name in ("a", "mark", "mine", "stale", "deep/mine"):
        (folder / name).write_text("old")
    folder.chmod(0o750)
    with staged(folder, last="mark", replaced=["stale"]) as new:
        for name in ("mark", "z", "a"):
            (new / name).write_text("new")
        assert set(contents(folder).values()) == {"old"}
    mine = {"mine": "old", "deep/mine": "old"}
    assert contents(folder) == {"a": "new", "z": "new", "mark": "new", "link": "new", **mine}
    assert folder.stat().st_mode & 0o777 == 0o750
    assert list(tmp_path.iterdir()) == [folder]


def test_without_exchange_the_mark_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mark").write_text("old")
    moved = []
    replace = Path.replace

    def recorded(self: Path, target: Path) -> Path:
        assert not (folder / "mark").exists()
        moved.append(self.name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", recorded)
    with staged(folder, last="mark") as new:
        for name in ("mark", "z", "a"):
            (new / name).write_text("new")
    assert moved == ["a", "z", "mark"]


def test_a_folder_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out" / "b").mkdir(parents=True)
    with (
        pytest.raises(ValueError, match=r"out/b: expected a file or nothing there, received a folder"),
        staged(tmp_path / "out", last="a") as new,
    ):
        for name in ("a", "b"):
            (new / name).write_text("new")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["b"]


def test_a_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "out").symlink_to(tmp_path / "there")
    with staged(tmp_path / "here" / "out", last="a") as new:
        (new / "a").write_text("new")
    assert (tmp_path / "here" / "out").is_symlink() and contents(tmp_path / "there") == {"a": "new"}


def test_exchange_is_one_step_or_none(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    (one / "file").write_text("content")
    other.mkdir()
    if not exchange(one, other):
        pytest.skip("this file system exchanges nothing")
    assert contents(other) == {"file": "content"} and contents(one) == {}
    with pytest.raises(FileNotFoundError):
        exchange(one, tmp_path / "none")


def test_what_is_set_aside_is_removed_or_put_back(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    with set_aside(tmp_path, ["old"]) as put_back:
        assert not (tmp_path / "old").exists()
        put_back()
    assert contents(tmp_path) == {"old": "old"}
    with set_aside(tmp_path, ["old"]):
        (tmp_path / "new").write_text("new")
    assert contents(tmp_path) == {"new": "new"}


# -- killed ------------------------------------------------------------------------------------------------------------

PUBLISH = """
import itertools, os, signal, sys
from pathlib import Path
from dfs_ros.system import atomic, staging

def killing(function):
    def called(*arguments, **options):
        global steps
        steps -= 1
        if steps == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return called

def publish(folder):
    os.fsync, os.mkdir, os.open, os.rmdir, os.unlink = map(killing, (os.fsync, os.mkdir, os.open, os.rmdir, os.unlink))
    Path.replace, Path.rename, Path.unlink = map(killing, (Path.replace, Path.rename, Path.unlink))
    atomic.exchange = killing(staging.exchange if sys.argv[2] == "exchange" else lambda one, other: False)
    with atomic.staged(folder, last="mark", replaced=["stale"]) as new:
        for name in ("a", "b", "mark"):
            (new / name).write_text("new")

for steps in itertools.count(1):
    folder = Path(sys.argv[1]) / str(steps) / "out"
    for name in ("a", "mark", "stale", "mine", "deep/mine"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old")
    child = os.fork()
    if not child:
        publish(folder)
        os._exit(0)
    if os.waitpid(child, 0)[1] != signal.SIGKILL:
        break
"""
MINE = {"mine": "old", "deep/mine": "old"}
OLD = {"a": "old", "mark": "old"}
NEW = {"a": "new", "b": "new", "mark": "new"}


def published(folder: Path) -> dict[str, str]:
    found = contents(folder)
    if found.get("a") == "new" and "mark" in found:
        assert "stale" not in found
    return {name: text for name, text in found.items() if name in NEW}


@pytest.mark.parametrize("way", ["exchange", "file by file"])
def test_killed_at_any_step_a_folder_is_old_or_new(tmp_path: Path, way: str) -> None:
    assert subprocess.run([sys.executable, "-c", PUBLISH, str(tmp_path), way], timeout=240).returncode == 0
    seen = []
    for number in range(1, len(list(tmp_path.iterdir())) + 1):
        folder = tmp_path / str(number) / "out"
        found = published(folder)
        assert found in (OLD, NEW) or (way != "exchange" and "mark" not in found), (number, found)
        staging.remove_abandoned(folder.parent)  # as the next writer does
        assert [p.name for p in folder.parent.iterdir()] == ["out"], number
        assert published(folder) in (OLD, NEW), (number, published(folder))
        assert contents(folder).items() >= MINE.items(), number
        seen.append(published(folder) == NEW)
    assert seen == sorted(seen) and len(seen) > 20 and not seen[10] and seen[-1]


# -- interrupted -------------------------------------------------------------------------------------------------------


def interrupted(publish: Callable[[], None], at: int) -> bool:
    """Call a function; KeyboardInterrupt at the numbered line of the modules. False if it ends before."""
    left = at

    def step(frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
        nonlocal left
        if frame.f_code.co_filename not in (atomic.__file__, staging.__file__):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return step

    traced = sys.gettrace()
    sys.settrace(step)
    try:
        publish()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(traced)
    return False


@pytest.mark.parametrize("way", ["exchange", "file by file"])
def test_interrupted_at_any_line_a_folder_is_old_or_new(
    tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way != "exchange":
        monkeypatch.setattr(atomic, "exchange", lambda one, other: False)
    folder = tmp_path / "out"

    def publish() -> None:
        with staged(folder, last="mark", replaced=["stale"]) as new:
            for name in ("a", "b", "mark"):
                (new / name).write_text("new")

    seen = []
    for at in itertools.count(1):
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("a", "mark", "stale", "mine", "deep/mine"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("old")
        if not interrupted(publish, at):
            break
        assert [p.name for p in tmp_path.iterdir()] == ["out"], at
        assert published(folder) in (OLD, NEW), (at, published(folder))
        assert contents(folder).items() >= MINE.items(), at
        seen.append(published(folder) == NEW)
    assert seen == sorted(seen) and len(seen) > 100 and not seen[50] and seen[-1]


def test_interrupted_at_any_line_what_is_set_aside_is_back_or_removed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    folder = tmp_path / "link"

    def replace() -> None:
        with set_aside(folder, ["a", "b"]):
            (folder / "new").write_text("new")

    lost = 0
    for at in itertools.count(1):
        for name in ("a", "b"):
            (folder / name).write_text("old")
        (folder / "new").unlink(missing_ok=True)
        if not interrupted(replace, at):
            break
        found = set(contents(tmp_path / "disk"))
        assert found in ({"a", "b"}, {"new"}, set()), at
        assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "link"], at
        lost += found == set()
    assert contents(tmp_path / "disk") == {"new": "new"} and at > 30
    assert lost <= 3  # from the end of the plan to the block


def test_moves_into_a_folder_that_is_gone_leave_nothing(tmp_path: Path) -> None:
    with staged(tmp_path / "out", last="mark") as new:
        (new / "mark").write_text("old")
    with Staging(tmp_path, "out") as again:
        again.content.mkdir()
        again.plan(["mine"], tmp_path / "out")
        shutil.rmtree(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


AT_EXIT = """
import atexit, sys
from pathlib import Path
from dfs_ros.system.atomic import staged
def save():
    for turn in range(2):
        with staged(sys.argv[1], last="mark") as folder:
            (folder / "mark").write_text(str(turn))
atexit.register(save)
save()
"""


def test_exit_handlers_may_write(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", AT_EXIT, str(tmp_path / "out")], timeout=240).returncode == 0
    assert contents(tmp_path) == {"out/mark": "1"}


def test_what_a_living_writer_holds_stays(tmp_path: Path) -> None:
    with Staging(tmp_path, "out") as held:
        held.content.write_text("partial")
        write_atomically(tmp_path / "other", b"content")
        staging.remove_abandoned(tmp_path)
        assert held.content.read_text() == "partial"
    foreign = tmp_path / ".out.1234.part"  # not a name of ours
    foreign.mkdir()
    ours = tmp_path / ".out.0123abcd.part"
    ours.mkdir()
    write_atomically(tmp_path / "other", b"content")
    assert foreign.is_dir() and not ours.exists()


def test_a_link_with_the_name_of_a_dead_writer_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    (tmp_path / ".out.0123abcd.part").symlink_to(tmp_path / "precious")
    staging.remove_abandoned(tmp_path)
    assert contents(tmp_path / "precious") == {"file": "mine"}


TWO = """
import sys
from dfs_ros.system.atomic import staged
for turn in range(40):
    with staged(sys.argv[1], last="mark") as folder:
        for name in ("a", "b", "mark"):
            (folder / name).write_text(sys.argv[2])
"""


def test_two_publishers_never_mix(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "mine").write_text("mine")
    writers = [subprocess.Popen([sys.executable, "-c", TWO, str(folder), str(i)]) for i in range(2)]
    assert [writer.wait(timeout=240) for writer in writers] == [0, 0]
    found = contents(folder)
    assert found.pop("deep/mine") == "mine"
    assert set(found) == {"a", "b", "mark"} and len(set(found.values())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", ["fsync", "exchange"])
def test_a_disk_that_fails_leaves_the_old_folder(
    tmp_path: Path, code: int, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    for name in ("a", "mark"):
        (folder / name).write_text("old")

    def fails(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(os if call == "fsync" else atomic, call, fails)
        with pytest.raises(OSError), staged(folder, last="mark") as new:
            for name in ("a", "b", "mark"):
                (new / name).write_text("new")
    assert contents(folder) == {"a": "old", "mark": "old"} and [p.name for p in tmp_path.iterdir()] == ["out"]
