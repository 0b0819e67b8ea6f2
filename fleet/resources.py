# SPDX-License-Identifier: Apache-2.0
"""Where the files that are not code lie: configurations, launch files and model bundles.

They are found beside the package in a checkout, in the share directory of a ROS 2 workspace, and below
``sys.prefix`` after ``pip install``. Nothing is looked up when this module is imported, and ROS is not needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from fleet.errors import FleetError

PACKAGE = "fleet"
MANIFEST = "manifest.json"  # what makes a directory a model bundle


def share_directory() -> Path:
    """Find the directory that holds ``config/``, ``launch/`` and ``models/``.

    Code that runs from a checkout uses the checkout's own files, whatever else is installed on the machine: new
    code with the data of an older installation would be a puzzle to whoever edits it.

    Returns:
        Absolute path of the directory.

    Raises:
        FleetError: none of the places has the files.
    """
    for directory in _candidates():
        if (directory / "config").is_dir():
            return directory
    tried = ", ".join(str(directory) for directory in _candidates())
    raise FleetError(
        f"the configuration files of {PACKAGE} are nowhere to be found (looked in {tried}): "
        "install with 'pip install .' (an editable install needs its checkout) or source the workspace"
    )


def expanded(path: str | Path) -> Path:
    """The path with ``~`` resolved.

    Raises:
        FleetError: ``~NAME`` of a user that there is not.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as err:
        raise FleetError(f"'{path}': there is no such user") from err


def find_config(name: str | Path) -> Path:
    """Find a configuration file.

    Args:
        name: path of a file, or the name of one below ``config/`` of the share directory; ``.yaml`` may be left out.

    Returns:
        Absolute path of an existing file.

    Raises:
        FleetError: there is no such file; the message lists those that come with the package.
    """
    given = expanded(name)
    if given.is_file():
        return given.absolute()
    share = share_directory()
    shipped = share / "config"
    for path in (shipped / given, shipped / f"{given}.yaml", share / given):
        if path.is_file():
            return path
    known = ", ".join(sorted(str(path.relative_to(shipped)) for path in shipped.rglob("*.yaml")))
    raise FleetError(f"no configuration file '{name}': give a path" + (f" or one of {known}" if known else ""))


def find_model(name_or_path: str | Path) -> Path:
    """Find a model bundle.

    Args:
        name_or_path: path of a bundle directory, or the name of one below ``models/`` of the share directory.

    Returns:
        Absolute path of a directory that holds a manifest. Whether the bundle is sound is for the loader to say.

    Raises:
        FleetError: there is no such directory, or it holds no manifest.
    """
    given = expanded(name_or_path)
    if (given / MANIFEST).is_file():
        return given.absolute()
    share = share_directory()
    shipped = share / "models"
    for path in (shipped / given, share / given):
        if (path / MANIFEST).is_file():
            return path
    if given.exists():
        raise FleetError(f"'{name_or_path}' is not a model bundle: it has no {MANIFEST}")
    known = ", ".join(sorted(path.parent.name for path in shipped.glob(f"*/{MANIFEST}")))
    raise FleetError(f"no model bundle '{name_or_path}': give its directory" + (f" or one of {known}" if known else ""))


def _candidates() -> Iterator[Path]:
    """Yield the places to look in, the most specific first."""
    beside = Path(__file__).absolute().parent.parent
    if (beside / "package.xml").is_file():  # never installed next to the code, so this is a checkout
        yield beside
    indexed = _ament_share()
    if indexed is not None:
        yield indexed
    yield Path(sys.prefix) / "share" / PACKAGE


def _ament_share() -> Path | None:
    """Ask the ament index, where there is one; the wheels of ROS 2 come without the variable that points to it."""
    try:
        from ament_index_python.packages import get_package_share_directory  # noqa: PLC0415 (ROS is optional)
    except ImportError:
        return None
    try:
        return Path(get_package_share_directory(PACKAGE))
    except (LookupError, OSError):  # not in this workspace; AMENT_PREFIX_PATH not set
        return None
