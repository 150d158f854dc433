"""Built engines, kept so that they need not be built at every start, and never used where they do not belong.

`$XDG_CACHE_HOME/dfs_ros/engines/<key>.plan` is the engine, `<key>.json` what it was built from and the hash of its
bytes. The key is the hash of all that affects an engine. Files are written whole or not at all, in a folder that
nobody else reads; a lock for each key lets one process build while others wait for its result. A folder that cannot be
written costs building at every start, and a warning.
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

from dfs_ros.paths import cache_folder, write_atomically
from dfs_ros.runner.base import RunnerError

Engine = TypeVar("Engine")

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
    """Engines in a folder (default: the user's cache)."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder("engines")

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
            kept = self.read(key)
            if kept is not None:
                try:
                    return load(kept)
                except RunnerError as error:
                    _log.warning("engine %s: cannot be loaded (%s); it is built anew", self._plan(key), error)
                    self.discard(key)
            plan = build()
            engine = load(plan)
            self.write(key, plan, check(engine))
            return engine

    def read(self, key: EngineKey) -> bytes | None:
        """Bytes of the engine; None where there is none, or with a warning where it is not what it should be."""
        try:
            facts = json.loads(self._facts(key).read_bytes())
            plan = self._plan(key).read_bytes()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            _log.warning("engine %s: cannot be read (%s); it is built anew", self._plan(key), error)
            return None
        if not isinstance(facts, dict) or facts.get("key") != dataclasses.asdict(key):
            _log.warning("engine %s: was built from something else; it is built anew", self._plan(key))
            return None
        if facts.get("plan_sha256") != hashlib.sha256(plan).hexdigest():
            _log.warning("engine %s: is damaged or cut short (%d bytes); it is built anew", self._plan(key), len(plan))
            return None
        return plan

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
            _log.warning("engines are built at every start: %s cannot be written (%s)", self.folder, error)
            with contextlib.suppress(OSError):
                self.discard(key)

    def discard(self, key: EngineKey) -> None:
        """Remove an engine, if there is one."""
        with contextlib.suppress(OSError):
            self._facts(key).unlink(missing_ok=True)
            self._plan(key).unlink(missing_ok=True)

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
