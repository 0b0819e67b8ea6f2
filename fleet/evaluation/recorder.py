# SPDX-License-Identifier: Apache-2.0
"""Which pictures a trace is of, and how it is written: array by array, so that a recording may be broken off."""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fleet.bundle import sha256_of
from fleet.errors import FleetError
from fleet.evaluation.trace import INDEX, SPLITS, Array, TraceIndex, array_path, read_index
from fleet.sources import Frame, open_source


@dataclass(frozen=True)
class Pictures:
    """A part of a data set.

    Attributes:
        data: what :func:`fleet.sources.open_source` takes.
        last: only the last so many pictures; 0: all.
        first: only the first so many of these; 0: all.
    """

    data: str
    last: int = 0
    first: int = 0

    def read(self) -> list[Frame]:
        """The pictures.

        Raises:
            FleetError: there are none, or not so many.
        """
        with open_source(self.data, on_skip=lambda _line: None, realtime=False) as source:
            if source.live:
                raise FleetError(f"{self.data} is no set of pictures: give a directory or a tar of CLASS/FILE")
            frames = deque(iter(source.read, None), maxlen=self.last or None)
        if len(frames) < self.last:
            raise FleetError(f"{self.data} has {len(frames)} pictures, not {self.last}")
        return list(islice(frames, self.first or None))

    def describe(self) -> dict[str, Any]:
        """For the index."""
        return {"data": Path(self.data).name, "last": self.last, "first": self.first}


@dataclass
class Recorder:
    """Writes a trace, array by array; the index names only what is finished.

    Attributes:
        path: the folder.
        index: as it is on disk.
    """

    path: Path
    index: TraceIndex
    _parts: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def begin(cls, path: Path, index: TraceIndex) -> Recorder:
        """Begin a trace, or go on with one of the same bundle and pictures.

        Raises:
            FleetError: the folder holds another trace or cannot be written.
        """
        if (path / INDEX).is_file():
            there = read_index(path)
            for what, old, new in (
                ("a bundle with other networks", there.bundle["content"], index.bundle["content"]),
                ("other pictures", _data(there), _data(index)),
            ):
                if old != new:
                    raise FleetError(f"{path} is a trace of {what}: give another --output")
            recorder = cls(path, there)
            if there.local_exits != index.local_exits:
                gone = {f"{split}/{name}" for split in SPLITS for name in ("local", "local-exits")}
                recorder.change(arrays={k: v for k, v in there.arrays.items() if k not in gone})
            if there.picture.get("content") != index.picture.get("content"):
                gone = {name for name in recorder.index.arrays if name.split("/")[1].startswith("picture-")}
                kept = {k: v for k, v in recorder.index.arrays.items() if k not in gone}
                recorder.change(arrays=kept, picture=index.picture)
            # Thresholds and temperatures do not matter to what is recorded: the newest count.
            recorder.change(
                bundle=index.bundle,
                temperatures=index.temperatures,
                thresholds=index.thresholds,
                local_exits=index.local_exits,
            )
            return recorder
        recorder = cls(path, index)
        try:
            for split in SPLITS:
                (path / split).mkdir(parents=True, exist_ok=True)
        except OSError as err:
            raise FleetError(f"cannot write the trace to {path}: {err.strerror}") from err
        recorder._write_index()
        return recorder

    def has(self, name: str) -> bool:
        """Whether an array is finished."""
        return name in self.index.arrays

    def load(self, name: str) -> Array:
        """A finished array."""
        found: Array = np.load(array_path(self.path, name), mmap_mode="r")
        return found

    def save(self, arrays: Mapping[str, Array], **changes: Any) -> None:
        """Write whole arrays, and what of the index changes with them."""
        for name, array in arrays.items():
            np.save(array_path(self.path, name), array)
        self._finish(*arrays, **changes)

    def open_part(self, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> tuple[Array, int]:
        """An array that is written bit by bit, and how many images of it were finished when it was left."""
        draft, progress = self._draft(name)
        done = 0
        if draft.is_file() and progress.is_file():
            there = np.load(draft, mmap_mode="r+")
            if there.shape == shape and there.dtype == np.dtype(dtype):
                done = int(json.loads(progress.read_text()))
                self._parts[name] = there
        if name not in self._parts:
            self._parts[name] = np.lib.format.open_memmap(draft, "w+", dtype=np.dtype(dtype), shape=shape)
        return self._parts[name], done

    def mark(self, name: str, done: int) -> None:
        """So many images of an open part are finished."""
        _flush(self._parts[name])
        progress = self._draft(name)[1]
        part = progress.with_suffix(".new")
        part.write_text(json.dumps(done))
        part.replace(progress)

    def close_part(self, name: str) -> None:
        """An open part is finished."""
        _flush(self._parts.pop(name))
        draft, progress = self._draft(name)
        draft.replace(array_path(self.path, name))
        self._finish(name)
        progress.unlink(missing_ok=True)

    def change(self, **changes: Any) -> None:
        """Change entries of the index, as another recorder of the other split may have left it."""
        with self._alone():
            self.index = replace(read_index(self.path), **changes)
            self._write_index()

    def _finish(self, *names: str, **changes: Any) -> None:
        known = {name: sha256_of(array_path(self.path, name)) for name in names}
        with self._alone():
            there = read_index(self.path)
            self.index = replace(there, arrays={**there.arrays, **known}, **changes)
            self._write_index()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else changes the index meanwhile."""
        with (self.path / f"{INDEX}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _draft(self, name: str) -> tuple[Path, Path]:
        file = array_path(self.path, name)
        return file.with_suffix(".part.npy"), file.with_suffix(".progress")

    def _write_index(self) -> None:
        part = self.path / f"{INDEX}.part"  # an index that is rewritten is whole at every moment
        try:
            part.write_text(json.dumps(self.index.to_json(), indent=1) + "\n", encoding="utf-8")
            part.replace(self.path / INDEX)
        except OSError as err:
            raise FleetError(f"cannot write {self.path / INDEX}: {err.strerror}") from err


def _flush(array: Array) -> None:
    if isinstance(array, np.memmap):
        array.flush()


def _data(index: TraceIndex) -> dict[str, Any]:
    return {name: {k: split[k] for k in ("data", "last", "first")} for name, split in index.splits.items()}
