"""Cache of built engines, keyed by all that an engine depends on.

`$XDG_CACHE_HOME/dfs_ros/engines/<key>.plan` is the engine, `<key>.json` has its inputs and the hash of its bytes,
`<key>.jit` the run-time compilations of TensorRT for RTX. The key is the hash of all that affects an engine. Files are
written atomically, in a private folder; a lock for each key lets one process build while others wait for its result.
Without a writable folder every start builds, with a warning. Engines beyond the total size are removed, least recently
used first; those in use by a process stay.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dfs_ros.network.runners.base import RunnerError
from dfs_ros.system.atomic import write_atomically
from dfs_ros.system.cache import keep, read_file, read_kept
from dfs_ros.system.folders import cache_folder
from dfs_ros.system.tracebacks import keep_traceback

Engine = TypeVar("Engine")

MOST_BYTES = 1 << 30
_MOST_FACTS_BYTES = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineKey:
    """Key of an engine: all that affects it."""

    onnx_sha256: str
    backend: str
    backend_version: str
    gpu: str
    compute_capability: str
    cuda_version: str
    driver_version: str
    precision: str
    shapes: str
    options: str

    def digest(self) -> str:
        """Digest of the key, 64 hexadecimal digits; names the files."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()


class EngineCache:
    """Cache of engines in a folder (default: the user's), at most `most_bytes`."""

    def __init__(self, folder: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder or cache_folder("engines")
        self._most_bytes = most_bytes
        self._in_use: dict[str, int] = {}  # descriptors of the locked files that show it to others

    def obtain(
        self,
        key: EngineKey,
        build: Callable[[], bytes],
        load: Callable[[bytes], Engine],
        check: Callable[[Engine], dict[str, Any]],
    ) -> Engine:
        """Return the engine of `key`, from the folder or built.

        Parameters
        ----------
        build
            Function that builds the bytes of the engine.
        load
            Function that makes an engine of bytes. Raises RunnerError for bytes unfit for this machine; cached ones
            are then rebuilt.
        check
            Function that compares a new engine with the reference and returns figures for the record. Raises
            RunnerError for a wrong one, which is then not cached.
        """
        with self._locked(key):
            self._use(key)
            try:
                return self._kept_or_built(key, build, load, check)
            except BaseException:
                self.release(key)
                raise

    def _kept_or_built(
        self,
        key: EngineKey,
        build: Callable[[], bytes],
        load: Callable[[bytes], Engine],
        check: Callable[[Engine], dict[str, Any]],
    ) -> Engine:
        kept = self.read(key)
        if kept is not None:
            try:
                return load(kept)
            except RunnerError as error:
                keep_traceback(error)
                _log.warning("engine %s: cannot be loaded (%s); it is built anew", self._plan(key), error)
                self.discard(key)
        plan = build()
        engine = load(plan)
        self.write(key, plan, check(engine))
        self.prune()
        return engine

    def release(self, key: EngineKey) -> None:
        """Release the engine of `key` in this process."""
        descriptor = self._in_use.pop(key.digest(), None)
        if descriptor is not None:
            os.close(descriptor)

    def read(self, key: EngineKey) -> bytes | None:
        """Bytes of the engine; None if absent, or (with a warning) if damaged."""
        try:
            facts = json.loads(read_file(self._facts(key), _MOST_FACTS_BYTES))
            if not isinstance(facts, dict) or facts.get("key") != dataclasses.asdict(key):
                _log.warning("engine %s: was built from something else; it is built anew", self._plan(key))
                return None
            size = facts.get("plan_bytes")
            plan = read_file(self._plan(key), size if isinstance(size, int) else 0)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:  # the latter of deeply nested JSON
            keep_traceback(error)
            _log.warning("engine %s: cannot be read (%s); it is built anew", self._plan(key), error)
            return None
        if facts.get("plan_sha256") != hashlib.sha256(plan).hexdigest():
            _log.warning("engine %s: is damaged or cut short (%d bytes); it is built anew", self._plan(key), len(plan))
            return None
        with contextlib.suppress(OSError):
            os.utime(self._facts(key))  # marks the time of use
        return plan

    def read_compiled(self, key: EngineKey) -> bytes | None:
        """Run-time compiled kernels of the engine; None if absent or damaged."""
        return read_kept(self._compiled(key))

    def write_compiled(self, key: EngineKey, compiled: bytes) -> None:
        """Cache run-time compiled kernels."""
        keep(self._compiled(key), compiled)

    def write(self, key: EngineKey, plan: bytes, checked: dict[str, Any]) -> None:
        """Cache an engine; an unwritable folder is a warning."""
        facts = {
            "key": dataclasses.asdict(key),
            "plan_sha256": hashlib.sha256(plan).hexdigest(),
            "plan_bytes": len(plan),
            "checked": checked,
        }
        try:
            self.discard(key)
            write_atomically(self._plan(key), plan)
            write_atomically(
                self._facts(key), json.dumps(facts, indent=2).encode()
            )  # last, as it marks a complete engine
        except OSError as error:
            keep_traceback(error)
            _log.warning("engines are built at every start: %s cannot be written (%s)", self.folder, error)
            with contextlib.suppress(OSError):
                self.discard(key)

    def discard(self, key: EngineKey) -> None:
        """Remove an engine, if there is one."""
        self._remove(key.digest())

    def prune(self) -> None:
        """Remove engines, least recently used first, until the rest fits.

        Engines in use by any process stay.
        """
        with contextlib.suppress(OSError):
            last_use = sorted((file.stat().st_mtime_ns, file.stem) for file in self.folder.glob("*.json"))
            sizes = {name: sum(f.stat().st_size for f in self._files(name) if f.exists()) for _, name in last_use}
            for _, name in last_use:
                if sum(sizes.values()) <= self._most_bytes:
                    return
                with self._unused(name) as unused:
                    if unused:
                        _log.info("engine %s: removed, for the cache is full", name)
                        self._remove(name)
                        del sizes[name]

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            for file in self._files(name):
                file.unlink(missing_ok=True)

    def _use(self, key: EngineKey) -> None:
        """Mark the engine as in use until release or the end of this process."""
        try:
            import fcntl

            if key.digest() not in self._in_use:
                descriptor = os.open(self.folder / f"{key.digest()}.use", os.O_RDWR | os.O_CREAT, 0o600)
                self._in_use[key.digest()] = descriptor
                fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits for a removal by another process
        except (OSError, ImportError) as error:
            keep_traceback(error)
            _log.debug("engine %s: others cannot be told that it is in use (%s)", key.digest(), error)

    @contextlib.contextmanager
    def _unused(self, name: str) -> Iterator[bool]:
        """Context with True if no process uses an engine; none can start to meanwhile."""
        import fcntl

        descriptor = os.open(self.folder / f"{name}.use", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self, key: EngineKey) -> Iterator[None]:
        """Lock a key against other processes; without a lock in an unwritable folder."""
        descriptor = None
        try:
            import fcntl  # not on every system

            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / f"{key.digest()}.lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.info("another process builds the same engine; waiting for it")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        except (OSError, ImportError) as error:
            keep_traceback(error)
            _log.warning("engines are not shared with other processes: no lock in %s (%s)", self.folder, error)
        try:
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)  # the file stays: without it two processes could hold the lock

    def _plan(self, key: EngineKey) -> Path:
        return self.folder / f"{key.digest()}.plan"

    def _facts(self, key: EngineKey) -> Path:
        return self.folder / f"{key.digest()}.json"

    def _compiled(self, key: EngineKey) -> Path:
        return self.folder / f"{key.digest()}.jit"

    def _files(self, name: str) -> tuple[Path, ...]:
        """Files of an engine, the record first, as it marks a complete engine."""
        return tuple(self.folder / f"{name}.{suffix}" for suffix in ("json", "plan", "jit"))
