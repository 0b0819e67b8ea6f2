# SPDX-License-Identifier: Apache-2.0
"""Writes a bag as ``ros2 bag record`` does, MCAP or SQLite, with the definitions of all messages inside."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from fleet.bags.definitions import ALL, Topic, definition, full_name, typestore
from fleet.errors import FleetError
from fleet.sources.files import reason

Storage = Literal["mcap", "sqlite3"]
VERSION: Literal[8] = 8  # of the metadata; Jazzy and newer read it


def check_storage(storage: str) -> Storage:
    """The storage of that name.

    Raises:
        FleetError: there is none.
    """
    for known in get_args(Storage):
        if storage == known:
            return known  # type: ignore[no-any-return]
    raise FleetError(f"storage is {' or '.join(get_args(Storage))}, not '{storage}'")


class BagWriter:
    """One bag on its way to disk; a context manager that leaves a whole bag, whatever ends it.

    Args:
        path: the bag's directory, which must not be there yet.
        storage: ``mcap`` or ``sqlite3``.

    Raises:
        FleetError: the directory is there already or cannot be made.
    """

    def __init__(self, path: Path, storage: Storage = "mcap") -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer  # noqa: PLC0415 - only bags need it

        self.path = path
        self.count = 0
        self._connections: dict[tuple[str, str], Any] = {}
        with self._told():
            plugin = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}[storage]
            self._writer: Any = Writer(path, version=VERSION, storage_plugin=plugin)
            self._writer.open()

    def write(self, camera: str, name: str, time_ns: int, message: bytes | Any) -> None:
        """Append one message.

        Args:
            camera: namespace, empty for what is of all cameras.
            name: of the topic below it (:data:`fleet.bags.definitions.TOPICS`).
            time_ns: when it was heard, nanoseconds since 1970.
            message: serialised, or an object of :func:`fleet.bags.definitions.typestore`.

        Raises:
            FleetError: it cannot be written, on a full disk for example.
        """
        topic = ALL[name]
        data = message if isinstance(message, bytes) else bytes(typestore().serialize_cdr(message, topic.type))
        with self._told():
            connection = self._connections.get((camera, name)) or self._connect(camera, name, topic)
            self._writer.write(connection, time_ns, data)
        self.count += 1

    def note(self, key: str, value: str) -> None:
        """Write something about the whole bag into its metadata."""
        self._writer.set_custom_data(key, value)

    def close(self) -> None:
        """End the bag; without this it cannot be read.

        Raises:
            FleetError: the end cannot be written.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            with self._told():
                writer.close()
        except FleetError:
            with contextlib.suppress(Exception):  # the disk is full: what else can fail has been said
                writer.abort()
            raise

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self, camera: str, name: str, topic: Topic) -> Any:
        text, digest = definition(topic.type)
        self._connections[camera, name] = self._writer.add_connection(
            full_name(camera, name), topic.type, msgdef=text, rihs01=digest, offered_qos_profiles=[_qos(topic)]
        )
        return self._connections[camera, name]

    @contextlib.contextmanager
    def _told(self) -> Any:
        from rosbags.rosbag2 import WriterError  # noqa: PLC0415

        try:
            yield
        except WriterError:
            raise FleetError(f"{self.path} exists already: give another --output") from None
        except OSError as err:
            raise FleetError(f"cannot write {self.path}: {reason(err)}") from err
        except sqlite3.Error as err:
            raise FleetError(f"cannot write {self.path}: {err}") from err


def _qos(topic: Topic) -> Any:
    """What ``ros2 bag play`` shall publish it with: latched topics stay latched."""
    from rosbags import interfaces as of  # noqa: PLC0415

    forever = of.QosTime(2147483647, 4294967295)
    durability = of.QosDurability.TRANSIENT_LOCAL if topic.latched else of.QosDurability.VOLATILE
    return of.Qos(
        history=of.QosHistory.KEEP_LAST,
        depth=topic.depth,
        reliability=of.QosReliability.RELIABLE,
        durability=durability,
        deadline=forever,
        lifespan=forever,
        liveliness=of.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )
