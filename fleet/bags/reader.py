# SPDX-License-Identifier: Apache-2.0
"""Reads a bag of either storage; whatever is wrong with it becomes one line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from fleet.bags.definitions import ALL, place_of, quoted, typestore
from fleet.errors import FleetError
from fleet.sources.frame import printable

STORAGES = (".mcap", ".db3")
METADATA = "metadata.yaml"
_MAGIC = {".mcap": b"\x89MCAP0\r\n", ".db3": b"SQLite format 3\0"}


def is_bag(path: Path) -> bool:
    """Whether a path looks like a bag: a directory with metadata, or a storage file."""
    if path.is_dir():
        return (path / METADATA).is_file()
    magic = _MAGIC.get(path.suffix.lower())
    if magic is None:
        return False
    try:
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False


@dataclass(frozen=True)
class Message:
    """One message of a bag.

    Attributes:
        camera: namespace, empty for what is of all cameras.
        name: of the topic below it.
        time_ns: when it was recorded, nanoseconds since 1970.
        content: decoded; fields as in the message definition that the bag has.
    """

    camera: str
    name: str
    time_ns: int
    content: Any


class BagReader:
    """An open bag; a context manager.

    Args:
        path: directory of a bag, or a single ``.mcap`` or ``.db3``.

    Raises:
        FleetError: there is no bag, it is damaged, cut short or empty, or nothing in it is FLEET's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader: Any = None
        _check_path(path)
        with self._told():
            from rosbags.rosbag2 import Reader  # noqa: PLC0415 - only bags need it

            self._reader = Reader(path)
            self._reader.open()
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        with self._told():
            connections = list(self._reader.connections)
            count = self._reader.message_count
        self._connections = [c for c in connections if place_of(c.topic, c.msgtype)]
        if not count:
            raise FleetError(f"{self.path} is empty: nothing was recorded")
        if not any(place_of(c.topic, c.msgtype)[0] for c in self._connections):  # type: ignore[index]
            found = ", ".join(f"{printable(c.topic)} ({printable(c.msgtype)})" for c in connections[:4])
            more = ", …" if len(connections) > 4 else ""
            raise FleetError(f"{self.path} holds nothing of FLEET, only {found}{more}")
        self._decoders: dict[str, Callable[[bytes], Any]] = {}

    @property
    def cameras(self) -> list[str]:
        """Namespaces that anything was recorded of, sorted."""
        places = (place_of(c.topic, c.msgtype) for c in self._connections if c.msgcount)
        return sorted({place[0] for place in places if place is not None and place[0]})

    def count(self, camera: str, name: str) -> int:
        """Messages of a camera's topic."""
        return sum(c.msgcount for c in self._connections if place_of(c.topic, c.msgtype) == (camera, name))

    def messages(self, names: Collection[str], cameras: Collection[str]) -> Iterator[Message]:
        """Messages in the order in which they were recorded.

        Args:
            names: of topics, as in :data:`fleet.bags.definitions.TOPICS`.
            cameras: whose.

        Raises:
            FleetError: the bag is damaged, or was recorded with messages that lack something.
        """
        wanted = {}
        for connection in self._connections:
            place = place_of(connection.topic, connection.msgtype)
            if place is not None and place[1] in names and (not place[0] or place[0] in cameras):
                wanted[connection.id] = (connection, place)
        if not wanted:
            return
        with self._told():
            for connection, time_ns, data in self._reader.messages([c for c, _ in wanted.values()]):
                camera, name = wanted[connection.id][1]
                yield Message(camera, name, time_ns, self._decoder(connection, name)(data))

    def _decoder(self, connection: Any, name: str) -> Callable[[bytes], Any]:
        """By the definition that the bag has of a message; where it has none or an unreadable one, by ours."""
        msgtype = connection.msgtype
        if msgtype not in self._decoders:
            store = _store_of(connection) or typestore()
            fields = {field for field, _ in store.fielddefs[msgtype][1]}
            lacking = [field for field in ALL[name].needs if field not in fields]
            if lacking:
                raise FleetError(
                    f"{self.path} was recorded with another version of FLEET: its {msgtype} has no {', '.join(lacking)}"
                )
            self._decoders[msgtype] = lambda data: store.deserialize_cdr(data, msgtype)
        return self._decoders[msgtype]

    def close(self) -> None:
        """Let go of the file."""
        reader, self._reader = self._reader, None
        if reader is not None and reader.is_open:
            with contextlib.suppress(Exception):  # a file that was read: nothing can be lost
                reader.close()

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FleetError:
            raise
        except PermissionError as err:
            raise FleetError(f"cannot read {self.path}: permission denied") from err
        # rosbags takes a storage at its word, so a damaged one may raise anything, from struct.error to MemoryError.
        except Exception as err:
            raise FleetError(self._damaged(err)) from err

    def _damaged(self, err: Exception) -> str:
        words = printable(" ".join(str(err).replace(str(self.path), self.path.name).split())) or type(err).__name__
        return f"{self.path} is damaged or cut short: {words}"


def _check_path(path: Path) -> None:
    try:
        if not path.exists():
            raise FleetError(f"there is no bag {path}")
        if path.is_dir():
            if (path / METADATA).is_file():
                return
            if any(child.suffix in STORAGES for child in path.iterdir()):
                raise FleetError(
                    f"{path} has no {METADATA}: its recording did not come to its end. "
                    "'ros2 bag reindex' or 'mcap recover' may save it"
                )
            raise FleetError(f"{path} is no bag: it has no {METADATA}")
        if path.suffix == ".bag":
            raise FleetError(f"{path} is a bag of ROS 1: convert it with 'rosbags-convert'")
        if path.suffix not in STORAGES:
            raise FleetError(f"{path} is no bag: give a bag's directory, or a file that ends in .mcap or .db3")
        if path.stat().st_size == 0:
            raise FleetError(f"{path} is empty (0 bytes)")
    except OSError as err:
        raise FleetError(f"cannot read {path}: {(err.strerror or str(err)).lower()}") from err


def _store_of(connection: Any) -> Any:
    """A type store with the definition that a connection brings; None where it brings none that can be read."""
    from rosbags.interfaces import MessageDefinitionFormat  # noqa: PLC0415
    from rosbags.typesys import Stores, TypesysError, get_types_from_msg, get_typestore  # noqa: PLC0415

    if connection.msgdef.format != MessageDefinitionFormat.MSG:
        return None
    store = get_typestore(Stores.EMPTY)
    try:
        store.register(get_types_from_msg(quoted(connection.msgdef.data), connection.msgtype))
        store.get_msgdef(connection.msgtype)
    except (TypesysError, KeyError):
        return None
    return store
