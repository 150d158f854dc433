"""Cache of built engines, keyed by all that an engine depends on.

`$XDG_CACHE_HOME/dfs_ros/engines/<key>.plan` is the engine, `<key>.json` what it was built from and the hash of its
bytes, `<key>.jit` what TensorRT for RTX compiles for it at run time. The key is the hash of all that affects an engine.
Files are written whole or not at all, in a folder that nobody else reads; a lock for each key lets one process build
while others wait for its result. A folder that cannot be written costs building at every start, and a warning. When the
engines are too large together, those not used for longest go; one that a process has in use stays.
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
from dfs_ros.system.cache import keep, read_kept
from dfs_ros.system.folders import cache_folder
from dfs_ros.system.tracebacks import keep_traceback

Engine = TypeVar("Engine")

MOST_BYTES = 1 << 30

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineKey:
    """All that affects an engine."""

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
        """64 hexadecimal digits, the name of the files."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()


class EngineCache:
    """Engines in a folder (default: the user's cache), `most_bytes` of them together."""

    def __init__(self, folder: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        self.folder = folder or cache_folder("engines")
        self._most_bytes = most_bytes
        self._in_use: dict[str, int] = {}  # descriptors of the files that tell others so

    def obtain(
        self,
        key: EngineKey,
        build: Callable[[], bytes],
        load: Callable[[bytes], Engine],
        check: Callable[[Engine], dict[str, Any]],
    ) -> Engine:
        """The engine of `key`, from the folder or built.

        Parameters
        ----------
        build
            Makes the bytes of the engine.
        load
            Makes an engine of bytes. Raises RunnerError where they are not one for this machine; kept ones are then
            built anew.
        check
            Compares a newly built engine with the reference; returns figures for the record. Raises RunnerError where
            it is wrong: then nothing is kept.
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
        """The engine of `key` is no longer in use here."""
        descriptor = self._in_use.pop(key.digest(), None)
        if descriptor is not None:
            os.close(descriptor)

    def read(self, key: EngineKey) -> bytes | None:
        """Bytes of the engine; None if absent, or (with a warning) if damaged."""
        try:
            facts = json.loads(self._facts(key).read_bytes())
            plan = self._plan(key).read_bytes()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            keep_traceback(error)
            _log.warning("engine %s: cannot be read (%s); it is built anew", self._plan(key), error)
            return None
        if not isinstance(facts, dict) or facts.get("key") != dataclasses.asdict(key):
            _log.warning("engine %s: was built from something else; it is built anew", self._plan(key))
            return None
        if facts.get("plan_sha256") != hashlib.sha256(plan).hexdigest():
            _log.warning("engine %s: is damaged or cut short (%d bytes); it is built anew", self._plan(key), len(plan))
            return None
        with contextlib.suppress(OSError):
            os.utime(self._facts(key))  # the time of the last use
        return plan

    def read_compiled(self, key: EngineKey) -> bytes | None:
        """Run-time compiled kernels of the engine; None if absent or damaged."""
        return read_kept(self._compiled(key))

    def write_compiled(self, key: EngineKey, compiled: bytes) -> None:
        """Keep run-time compiled kernels."""
        keep(self._compiled(key), compiled)

    def write(self, key: EngineKey, plan: bytes, checked: dict[str, Any]) -> None:
        """Keep an engine; a folder that cannot be written is a warning."""
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
            )  # last: without it there is no engine
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

        Engines in use by any process stay."""
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
                fcntl.flock(descriptor, fcntl.LOCK_SH)  # waits while somebody removes it
        except (OSError, ImportError) as error:
            keep_traceback(error)
            _log.debug("engine %s: others cannot be told that it is in use (%s)", key.digest(), error)

    @contextlib.contextmanager
    def _unused(self, name: str) -> Iterator[bool]:
        """Whether nobody uses an engine; nobody begins to meanwhile."""
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
        """Wait until no other process is at this key. Without a lock where the folder cannot be written."""
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
                os.close(descriptor)  # the file stays: removing it would let two in

    def _plan(self, key: EngineKey) -> Path:
        return self.folder / f"{key.digest()}.plan"

    def _facts(self, key: EngineKey) -> Path:
        return self.folder / f"{key.digest()}.json"

    def _compiled(self, key: EngineKey) -> Path:
        return self.folder / f"{key.digest()}.jit"

    def _files(self, name: str) -> tuple[Path, ...]:
        """Of an engine, the record first: without it there is no engine."""
        return tuple(self.folder / f"{name}.{suffix}" for suffix in ("json", "plan", "jit"))
