# SPDX-License-Identifier: Apache-2.0
"""YAML in which a key that stands twice is a mistake, as it always is, and not the end of the first one."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # what is merged in may be overridden
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # refused below
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"'{key}' stands twice in one mapping", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load(text: str) -> Any:
    """The content of one YAML document.

    Raises:
        yaml.YAMLError: no YAML, or a key that stands twice in one mapping.
        ValueError: something that looks like a date and is none.
        RecursionError: nested too deeply.
    """
    return yaml.load(text, _Loader)
