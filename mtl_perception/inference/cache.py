# SPDX-License-Identifier: Apache-2.0
"""
The engine cache: built engines on disk, found by all that decides whether they still fit.

An entry is a directory named by the SHA-256 of its key, with `engine.bin`, `engine.json` which
says the key and the build in words, and one `verified-*.json` per device it was checked on. A
directory is renamed into place when it is whole. Engines that failed their check are moved to
`quarantine/` and neither used nor built again until they are purged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
import fcntl
import hashlib
import json
import os
from pathlib import Path
import re
import shutil
import time
from typing import Any

from mtl_perception.files import atomic_directory, atomic_write
from mtl_perception.inference.device import Device
from mtl_perception.inference.engine import InferenceError
from mtl_perception.inference.engine_key import EngineKey

CONTENT_FILE = 'engine.bin'
SIDECAR_FILE = 'engine.json'
DEFAULT_LIMIT_BYTES = 4 << 30
_QUARANTINE = 'quarantine'
# What the cache makes: entries, their locks, entries and files in the making, and probes.
_OWN_NAMES = re.compile(r'[0-9a-f]{64}(\.lock)?|\.[0-9a-f]{64}\..+|\.probe-\d+')


class CacheError(InferenceError):
    """A cache directory that cannot be written; the message names it and the system's reason."""


@dataclass(frozen=True)
class Built:
    """A serialised engine and what its builder said of it."""

    content: bytes
    report: Mapping[str, Any] = field(default_factory=dict)  # plain JSON values


@dataclass(frozen=True)
class Entry:
    """An engine as it lies in the cache."""

    directory: Path
    key: EngineKey
    document: Mapping[str, Any]  # engine.json

    @property
    def size(self) -> int:
        """Bytes of the engine."""
        return int(self.document['bytes'])


def default_directory() -> Path:
    """Return the user's own cache directory for engines; it survives a reboot."""
    base = os.environ.get('XDG_CACHE_HOME', '')
    # The specification says that a relative path there is to be ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / '.cache'
    return root / 'mtl_perception' / 'engines'


class EngineCache:
    """
    Engines in a directory, shared by processes.

    :param directory: None for the user's own
    :param limit_bytes: beyond it the engines unused for longest are deleted
    """

    def __init__(
        self, directory: Path | None = None, limit_bytes: int = DEFAULT_LIMIT_BYTES
    ) -> None:
        self.directory = directory or default_directory()
        self.limit_bytes = limit_bytes

    def find(self, key: EngineKey) -> Entry | None:
        """Return the entry of exactly this key, else one built ahead of time that fits it."""
        exact = _read(self.directory / key.digest)
        if exact is not None and exact.key == key:
            return exact
        return next((entry for entry in self.entries() if entry.key.fits(key)), None)

    def content(self, entry: Entry) -> bytes | None:
        """Return an entry's engine; None, and the entry is deleted, where it is damaged."""
        try:
            content = (entry.directory / CONTENT_FILE).read_bytes()
        except OSError:
            content = b''
        if hashlib.sha256(content).hexdigest() != entry.document['sha256']:
            shutil.rmtree(entry.directory, ignore_errors=True)
            return None
        try:
            os.utime(entry.directory / SIDECAR_FILE)  # the time of its last use
        except OSError:
            pass  # a read-only cache: nothing is deleted from it either
        return content

    def store(self, key: EngineKey, built: Built, about: Mapping[str, Any]) -> Entry:
        """
        Keep an engine, then delete old ones beyond the limit.

        :param about: further words for `engine.json`

        Raises
        ------
        CacheError
            If the directory cannot be written or the disk is full; nothing half is left.

        """
        document = {
            **about,
            'built': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
            'bytes': len(built.content),
            'sha256': hashlib.sha256(built.content).hexdigest(),
            'key': asdict(key),
            'report': dict(built.report),
        }
        target = self.directory / key.digest
        try:
            with atomic_directory(target) as directory:
                (directory / CONTENT_FILE).write_bytes(built.content)
                text = json.dumps(document, indent=2, ensure_ascii=False) + '\n'
                (directory / SIDECAR_FILE).write_text(text, encoding='utf-8')
        except OSError as error:
            raise self._unwritable(error) from error
        self._make_room(key.digest)
        return Entry(target, key, document)

    def _unwritable(self, error: OSError) -> CacheError:
        return CacheError(
            f'the engine cache {self.directory} cannot be written '
            f'({error.strerror or error}); free space there, mend its permissions, or set '
            'XDG_CACHE_HOME to a directory that survives a reboot'
        )

    def check_writable(self) -> None:
        """
        Raise unless an engine could be kept: better before minutes of building than after.

        Raises
        ------
        CacheError
            If the directory cannot be made or written.

        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            probe = self.directory / f'.probe-{os.getpid()}'
            try:
                probe.write_bytes(b'x')
            finally:
                # On a full disk the file is made, but nothing can be written into it.
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _make_room(self, kept: str) -> None:
        quarantined = self.quarantined_entries()
        entries = sorted(self.entries(), key=_last_use)
        total = sum(_bytes_on_disk(entry) for entry in (*quarantined, *entries))
        for entry in quarantined:
            if total <= self.limit_bytes:
                return
            total -= _bytes_on_disk(entry)
            # Why it is there must stay, or it would be built again.
            (entry.directory / CONTENT_FILE).unlink(missing_ok=True)
        for entry in entries:
            if total <= self.limit_bytes:
                return
            if entry.directory.name != kept:
                total -= _bytes_on_disk(entry)
                shutil.rmtree(entry.directory, ignore_errors=True)

    @contextmanager
    def lock(self, key: EngineKey, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """
        Hold the right to build `key`; a process that dies gives it back.

        :param waiting: called once if another process holds it

        Raises
        ------
        CacheError
            If the directory cannot be written.

        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            stream = (self.directory / f'{key.digest}.lock').open('w')
        except OSError as error:
            raise self._unwritable(error) from error
        with stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def verified(self, entry: Entry, device: Device) -> dict[str, float] | None:
        """Return by task how far this engine was from the reference on `device`, if checked."""
        try:
            document = json.loads(_verification(entry, device).read_text(encoding='utf-8'))
            if document['sha256'] != entry.document['sha256']:
                return None
            return {str(name): float(value) for name, value in document['errors'].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def keep_verification(
        self, entry: Entry, device: Device, errors: Mapping[str, float]
    ) -> None:
        """
        Keep what a check found.

        Raises
        ------
        CacheError
            If the directory cannot be written.

        """
        document = {
            'device': asdict(device),
            'sha256': entry.document['sha256'],
            'checked': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime()),
            'errors': dict(errors),
        }
        try:
            text = json.dumps(document, indent=2) + '\n'
            atomic_write(_verification(entry, device), text)
        except OSError as error:
            raise self._unwritable(error) from error

    def quarantine(self, entry: Entry, reason: str) -> None:
        """Take an engine out of use and keep it with the reason; a cache that fails is kept."""
        target = self.directory / _QUARANTINE / entry.directory.name
        try:
            target.parent.mkdir(exist_ok=True)
            if target.exists():
                shutil.rmtree(target)
            os.replace(entry.directory, target)
            atomic_write(target / 'reason.txt', reason + '\n')
        except OSError as error:
            raise self._unwritable(error) from error

    def quarantined(self, key: EngineKey) -> str:
        """Return why an engine that fits this key is in quarantine, or an empty string."""
        # One built ahead of time lies under its own key, not under that of this device.
        names = [entry.directory for entry in self.quarantined_entries() if entry.key.fits(key)]
        directories = [self.directory / _QUARANTINE / key.digest, *names]
        for directory in directories:
            if directory.is_dir():
                try:
                    return (directory / 'reason.txt').read_text(encoding='utf-8').strip()
                except OSError:
                    return 'it failed its check'
        return ''

    def entries(self) -> list[Entry]:
        """Return all engines that may be used; damaged sidecars are passed over."""
        try:
            directories = sorted(self.directory.iterdir())
        except OSError:
            return []
        entries = (_read(directory) for directory in directories)
        return [entry for entry in entries if entry is not None]

    def quarantined_entries(self) -> list[Entry]:
        """Return the engines in quarantine."""
        return EngineCache(self.directory / _QUARANTINE).entries()

    def purge(self) -> int:
        """
        Delete every engine, quarantined ones too; return how many.

        What a power cut or an older version left of them goes too. Files that the cache did not
        make stay: the directory may be any that a user named.

        Raises
        ------
        CacheError
            If one cannot be deleted.

        """
        entries = [*self.entries(), *self.quarantined_entries()]
        try:
            quarantine = self.directory / _QUARANTINE
            _delete_own(quarantine)
            if quarantine.is_dir() and not any(quarantine.iterdir()):
                quarantine.rmdir()
            _delete_own(self.directory)
        except OSError as error:
            raise self._unwritable(error) from error
        return len(entries)


def _delete_own(directory: Path) -> None:
    for path in directory.iterdir() if directory.is_dir() else ():
        if _OWN_NAMES.fullmatch(path.name):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _bytes_on_disk(entry: Entry) -> int:
    try:
        return (entry.directory / CONTENT_FILE).stat().st_size
    except OSError:
        return 0


def _read(directory: Path) -> Entry | None:
    # Names with a dot are entries in the making.
    if directory.name.startswith('.'):
        return None
    try:
        document = json.loads((directory / SIDECAR_FILE).read_text(encoding='utf-8'))
        key = EngineKey.from_json(document['key'])
        entry = Entry(directory, key, document)
        valid = isinstance(document['sha256'], str) and entry.size >= 0
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return entry if valid and key.digest == directory.name else None


def _last_use(entry: Entry) -> float:
    try:
        return (entry.directory / SIDECAR_FILE).stat().st_mtime
    except OSError:
        return 0.0


def _verification(entry: Entry, device: Device) -> Path:
    text = json.dumps(asdict(device), sort_keys=True)
    return entry.directory / f'verified-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json'
