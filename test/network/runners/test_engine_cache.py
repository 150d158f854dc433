"""The engine cache: kept engines are used, wrong ones never, and a folder that fails costs time alone."""

import dataclasses
import json
import logging
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from dfs_ros.network.runners.base import RunnerError
from dfs_ros.network.runners.engine_cache import EngineCache, EngineKey

KEY = EngineKey("ab" * 32, "tensorrt", "10.3.0", "Orin", "8.7", "12.6", "540.4", "fp16", "[...]", "strongly typed")
PLAN = bytes(range(256)) * 40


class Builder:
    """Counts what is asked of it."""

    def __init__(self, plan: bytes = PLAN) -> None:
        self.plan, self.built, self.checked = plan, 0, 0

    def obtain(self, cache: EngineCache, key: EngineKey = KEY) -> bytes:
        return cache.obtain(key, self._build, self._load, self._check)

    def _build(self) -> bytes:
        self.built += 1
        return self.plan

    def _load(self, plan: bytes) -> bytes:
        return plan

    def _check(self, engine: bytes) -> dict[str, float]:
        self.checked += 1
        return {"difference": 1e-5}


@pytest.fixture
def cache(tmp_path) -> EngineCache:
    return EngineCache(tmp_path / "engines")


def files(cache: EngineCache, suffix: str):
    return sorted(cache.folder.glob(f"*{suffix}"))


def test_an_engine_is_built_and_checked_once(cache) -> None:
    builder = Builder()
    assert [builder.obtain(cache) for _ in range(3)] == [PLAN] * 3
    assert (builder.built, builder.checked) == (1, 1)
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    (plan,), (facts,) = files(cache, ".plan"), files(cache, ".json")
    assert plan.stem == facts.stem == KEY.digest() and len(plan.stem) == 64
    told = json.loads(facts.read_text())
    assert told["key"] == dataclasses.asdict(KEY) and told["checked"] == {"difference": 1e-5}
    assert told["plan_bytes"] == len(PLAN)
    assert {file.suffix for file in cache.folder.iterdir()} == {".plan", ".json", ".lock", ".use"}


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(EngineKey)])
def test_whatever_differs_makes_another_engine(cache, field) -> None:
    other = dataclasses.replace(KEY, **{field: "other"})
    assert other.digest() != KEY.digest()
    builder = Builder()
    builder.obtain(cache)
    builder.obtain(cache, other)
    assert builder.built == 2


def truncate(cache):
    files(cache, ".plan")[0].write_bytes(PLAN[:1000])


def empty(cache):
    files(cache, ".plan")[0].write_bytes(b"")


def stretch(cache):
    os.truncate(files(cache, ".plan")[0], 1 << 40)


def flip_a_bit(cache):
    files(cache, ".plan")[0].write_bytes(PLAN[:500] + bytes([PLAN[500] ^ 1]) + PLAN[501:])


def of_another_version(cache):
    """As if copied from a machine with another TensorRT, under the name that is asked for here."""
    facts = files(cache, ".json")[0]
    told = json.loads(facts.read_text())
    told["key"]["backend_version"] = "11.0.0"
    facts.write_text(json.dumps(told))


def no_record(cache):
    files(cache, ".json")[0].write_text("{")


def record_of_another_kind(cache):
    files(cache, ".json")[0].write_text("[1]")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncate, "cut short"),
        (empty, "cut short"),
        (stretch, f"expected at most {len(PLAN)} bytes"),
        (flip_a_bit, "damaged"),
        (of_another_version, "something else"),
        (no_record, "cannot be read"),
        (record_of_another_kind, "something else"),
    ],
)
def test_what_is_not_as_it_was_kept_is_built_anew(cache, caplog, damage, said) -> None:
    builder = Builder()
    builder.obtain(cache)
    damage(cache)
    with caplog.at_level(logging.WARNING):
        assert builder.obtain(cache) == PLAN
    assert builder.built == 2 and said in caplog.text
    builder.obtain(cache)
    assert builder.built == 2  # mended


def test_half_of_the_files_is_no_engine(cache) -> None:
    builder = Builder()
    for suffix in (".plan", ".json"):
        builder.obtain(cache)
        files(cache, suffix)[0].unlink()
    assert builder.obtain(cache) == PLAN and builder.built == 3


def test_what_the_backend_refuses_is_built_anew(cache, caplog) -> None:
    Builder(b"made by another build of the library").obtain(cache)
    fresh = Builder()

    def load(plan: bytes) -> bytes:
        if plan != PLAN:
            raise RunnerError("wrong version tag")
        return plan

    with caplog.at_level(logging.WARNING):
        assert cache.obtain(KEY, fresh._build, load, fresh._check) == PLAN
    assert fresh.built == 1 and "wrong version tag" in caplog.text
    assert cache.read(KEY) == PLAN


def test_wrong_engines_are_not_kept(cache) -> None:
    def check(_: bytes) -> dict[str, float]:
        raise RunnerError("depth differs")

    builder = Builder()
    with pytest.raises(RunnerError, match="depth differs"):
        cache.obtain(KEY, builder._build, builder._load, check)
    assert not files(cache, ".plan") and not files(cache, ".json")
    builder.obtain(cache)
    assert builder.built == 2


def test_a_folder_that_cannot_be_made_costs_building_and_a_warning(tmp_path, caplog) -> None:
    (tmp_path / "a file").write_text("")
    cache, builder = EngineCache(tmp_path / "a file" / "engines"), Builder()
    with caplog.at_level(logging.WARNING):
        assert builder.obtain(cache) == PLAN and builder.obtain(cache) == PLAN
    assert builder.built == 2 and "cannot be written" in caplog.text


COMMON = """
import logging, sys, time
from pathlib import Path
from dfs_ros.network.runners.engine_cache import EngineCache
sys.path.insert(0, {here!r})
from test_engine_cache import KEY, PLAN
logging.basicConfig(level=logging.INFO)
folder = Path(sys.argv[1])
"""


def start(code: str, *arguments: str) -> "subprocess.Popen[str]":
    text = COMMON.format(here=str(Path(__file__).parent)) + code
    command = [sys.executable, "-c", text, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_full_disk_costs_a_warning_and_leaves_nothing(tmp_path) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # less than the engine
engine = EngineCache(folder).obtain(KEY, lambda: PLAN, lambda plan: plan, lambda engine: {})
print(engine == PLAN)
"""
    process = start(code, str(tmp_path))
    out, err = process.communicate(timeout=240)
    assert out == "True\n" and process.returncode == 0, err
    assert "cannot be written" in err
    assert {file.suffix for file in tmp_path.iterdir()} == {".lock", ".use"}


def test_a_read_only_folder_gives_what_it_has_and_costs_building_the_rest() -> None:
    code = """
import dataclasses, fcntl, json, os
if os.getuid() == 0:
    os.setuid(65534)  # the superuser may write everywhere
def obtain(key, built):
    return EngineCache(folder).obtain(key, lambda: built, lambda plan: plan, lambda engine: {})
print(obtain(KEY, b"") == PLAN, obtain(dataclasses.replace(KEY, gpu="other"), b"new"))
"""
    with tempfile.TemporaryDirectory() as folder:
        Builder().obtain(EngineCache(Path(folder)))
        before = sorted(Path(folder).iterdir())
        Path(folder).chmod(0o555)
        process = start(code, folder)
        out, err = process.communicate(timeout=240)
        assert out == "True b'new'\n" and process.returncode == 0, err
        assert "no lock in" in err and "cannot be written" in err
        assert sorted(Path(folder).iterdir()) == before
        Path(folder).chmod(0o700)


def test_two_processes_at_once_build_one_engine(tmp_path) -> None:
    code = """
def build():
    with (folder / "builds").open("a") as log:
        log.write("x")
    time.sleep(1.0)
    return PLAN
print(EngineCache(folder).obtain(KEY, build, lambda plan: plan, lambda engine: {}) == PLAN)
"""
    processes = [start(code, str(tmp_path)) for _ in range(3)]
    for process in processes:
        out, err = process.communicate(timeout=240)
        assert out == "True\n" and process.returncode == 0, err
    assert (tmp_path / "builds").read_text() == "x"


def test_a_process_that_dies_while_building_blocks_nobody(tmp_path) -> None:
    process = start(
        "import os\nEngineCache(folder).obtain(KEY, lambda: os._exit(3), lambda p: p, lambda e: {})", str(tmp_path)
    )
    process.communicate(timeout=240)
    assert process.returncode == 3
    builder = Builder()
    assert builder.obtain(EngineCache(tmp_path)) == PLAN and builder.built == 1


# --- its size -------------------------------------------------------------------------------------------------------


def obtained(cache: EngineCache, gpu: str, seconds: int) -> EngineKey:
    """An engine of that name, last used so many seconds after 1970."""
    key = dataclasses.replace(KEY, gpu=gpu)
    Builder().obtain(cache, key)
    os.utime(cache.folder / f"{key.digest()}.json", (seconds, seconds))
    return key


def test_engines_not_used_for_longest_go_first(cache) -> None:
    a, b, c = (obtained(cache, name, seconds) for name, seconds in (("a", 10), ("b", 20), ("c", 30)))
    cache.write_compiled(a, b"kernels")
    for key in (a, b, c):
        cache.release(key)
    Builder().obtain(cache, a)  # used again
    cache.release(a)
    one = sum(file.stat().st_size for file in cache.folder.glob(f"{c.digest()}.[jp]*"))
    EngineCache(cache.folder, most_bytes=2 * one + 100).prune()
    assert cache.read(b) is None and not (cache.folder / f"{b.digest()}.plan").exists()
    assert cache.read(a) == PLAN and cache.read(c) == PLAN and cache.read_compiled(a) == b"kernels"
    EngineCache(cache.folder, most_bytes=0).prune()
    assert not files(cache, ".plan") and not files(cache, ".json") and not files(cache, ".jit")


def test_building_makes_room(cache) -> None:
    cache = EngineCache(cache.folder, most_bytes=len(PLAN) + 2000)
    for name in "abc":
        cache.release(obtained(cache, name, 10))
    assert len(files(cache, ".plan")) == 1  # the new one, which is in use when room is made


def test_engines_in_use_stay_also_those_of_other_processes(cache, tmp_path) -> None:
    mine, other = obtained(cache, "mine", 10), dataclasses.replace(KEY, gpu="other")
    code = """
import dataclasses
cache = EngineCache(folder)
cache.obtain(dataclasses.replace(KEY, gpu="other"), lambda: PLAN, lambda plan: plan, lambda engine: {})
print("ready", flush=True)
sys.stdin.readline()
"""
    text = COMMON.format(here=str(Path(__file__).parent)) + code
    process = subprocess.Popen(
        [sys.executable, "-c", text, str(cache.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    none = EngineCache(cache.folder, most_bytes=0)
    none.prune()
    assert cache.read(mine) == PLAN and cache.read(other) == PLAN
    process.communicate("", timeout=240)
    none.prune()
    assert cache.read(mine) == PLAN and cache.read(other) is None
    cache.release(mine)
    none.prune()
    assert cache.read(mine) is None


def test_a_failure_leaves_no_engine_in_use(cache) -> None:
    def build() -> bytes:
        raise RunnerError("cannot be built")

    with pytest.raises(RunnerError, match="cannot be built"):
        cache.obtain(KEY, build, lambda plan: plan, lambda engine: {})
    assert cache._in_use == {}


def test_damaged_kernels_are_not_used(cache) -> None:
    assert cache.read_compiled(KEY) is None
    Builder().obtain(cache)
    cache.write_compiled(KEY, b"kernels")
    assert cache.read_compiled(KEY) == b"kernels"
    (file,) = files(cache, ".jit")
    file.write_bytes(file.read_bytes()[:-1])
    assert cache.read_compiled(KEY) is None
