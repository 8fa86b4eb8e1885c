"""YAML text as a tree that remembers where each value was written.

The YAML is data and nothing else: no tags, no anchors. Scalars follow YAML 1.2: `1e-3` is a number, `no` and
`12:30` are text.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lepton_rl.errors import ConfigError

_LONGEST_SHOWN = 200  # characters of an override
_MOST_DIGITS = 300  # a float holds no more, and Python refuses to read more than 4,300

Scalar = str | int | float | bool | None
OVERRIDE = "override "
"""How the place of a value begins that the command line gave."""


class CommandLineText(str):
    """Text given on the command line: a path in it starts from the working directory, not from the file."""


@dataclass
class Node:
    """A value and the place where it was written.

    Attributes:
        value: mapping, sequence or scalar.
        place: "FILE:LINE", or the override that gave the value.
        key_places: the same for the keys of a mapping.
    """

    value: "dict[str, Node] | list[Node] | Scalar"
    place: str
    key_places: dict[str, str]

    @classmethod
    def of(cls, value: Any) -> "Node":
        """Return the tree of values that were written nowhere."""
        if isinstance(value, dict):
            return cls({key: cls.of(entry) for key, entry in value.items()}, "", dict.fromkeys(value, ""))
        return cls([cls.of(entry) for entry in value] if isinstance(value, list | tuple) else value, "", {})

    def plain(self) -> Any:
        """Return the values alone."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def at(self, location: Sequence[int | str]) -> "tuple[Node, list[str], str]":
        """Follow a location as far as it exists.

        Parts that are no key are passed over: pydantic names the branch of a union there.

        Returns:
            The last node reached, the keys that led to it, and the place of the last key.
        """
        node, path, place = self, [], self.place
        for part in location:
            if isinstance(node.value, dict) and part in node.value:
                key = str(part)
                node, place = node.value[key], node.key_places[key]
                path.append(key)
            elif isinstance(node.value, list) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                place = node.place
                path.append(str(part))
        return node, path, place


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not used here", mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})\\Z"), list(_first))


def parse(text: str, name: str, from_command_line: bool = False) -> Node:
    """Return the tree of a YAML text; `name` is the file, or the override, that errors speak of."""
    problem = next((c for c in text if not (c.isprintable() or c in "\n\r\t\ufeff")), None)
    if problem is not None:
        line = text.count("\n", 0, text.index(problem)) + 1
        raise ConfigError(f"{name}:{line}: the character {problem!r} does not belong in a text file")
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Node(None, name, {})
        return _node(root, name, from_command_line)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        place = name if from_command_line else f"{name}:{line}"
        raise ConfigError(f"{place}: {_yaml_problem(text, line, error)}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{name}: the values are nested too deeply") from None
    finally:
        loader.dispose()


def read(path: Path) -> Node:
    """Return the tree of a YAML file, which must hold a mapping."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; a YAML file is wanted here") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file (UTF-8)") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    tree = parse(text, str(path))
    if tree.value is None:
        raise ConfigError(f"{path}: the file is empty")
    if not isinstance(tree.value, dict):
        raise ConfigError(f"{tree.place}: a file of `key: value` lines is wanted here")
    return tree


def override(tree: Node, text: str) -> None:
    """Set one value of the tree from `key.path=value`; a list takes a number, or + for its end."""
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        example = "workloads.0.windows.count=50" if "workloads" in tree.key_places else "seed=1"
        raise ConfigError(f"{text!r} is no override; write key.path=value, e.g. {example}")
    place = f"{OVERRIDE}{text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + '...'!r}"
    new = parse(value, place, from_command_line=True)
    node = tree
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        node = _step(node, key, new if last else None, place, ".".join(keys[:depth]))


def _step(node: Node, key: str, new: Node | None, place: str, parents: str) -> Node:
    """Return the child under `key`, made or replaced by `new`."""
    if node.value is None:
        node.value = {}
    if isinstance(node.value, dict):
        if new is not None or key not in node.value:
            node.value[key] = new or Node(None, place, {})
            node.key_places[key] = place
        return node.value[key]
    if isinstance(node.value, list):
        size = len(node.value)
        position = size if key == "+" else int(key) if key.isdecimal() else -1
        if not 0 <= position <= size:
            raise ConfigError(
                f"{place}: {parents} is a list of {size}; its entries are 0 to {size - 1}, or + to add one"
            )
        if position == size:
            node.value.append(new or Node(None, place, {}))
        elif new is not None:
            node.value[position] = new
        return node.value[position]
    # a plain value, such as a policy's name, becomes a mapping: what it may hold is the model's to say
    raise ConfigError(f"{place}: {parents} is {node.value!r} and has no entry {key!r}")


def _node(node: yaml.Node, name: str, from_command_line: bool) -> Node:
    place = name if from_command_line else f"{name}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Node] = {}
        places: dict[str, str] = {}
        for key_node, value_node in node.value:
            at = name if from_command_line else f"{name}:{key_node.start_mark.line + 1}"
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{at}: a key must be a plain word")
            key = key_node.value
            if key in values:
                raise ConfigError(f"{at}: {key}: this key was given before, at {places[key]}")
            values[key] = _node(value_node, name, from_command_line)
            places[key] = at
        return Node(values, place, places)
    if isinstance(node, yaml.SequenceNode):
        return Node([_node(entry, name, from_command_line) for entry in node.value], place, {})
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    text = node.value
    if kind == "null":
        return Node(None, place, {})
    if kind == "bool":
        return Node(text.lower() == "true", place, {})
    if kind == "int":
        if len(text) > _MOST_DIGITS:
            raise ConfigError(f"{place}: a number of {len(text):,} digits is too large to compute with")
        return Node(int(text.replace("_", "")), place, {})
    if kind == "float":
        return Node(_float(text, place), place, {})
    if kind == "str":
        return Node(CommandLineText(text) if from_command_line else text, place, {})
    raise ConfigError(f"{place}: the tag {node.tag!r} is not used here; write the plain value")


def _float(text: str, place: str) -> int | float:
    """Return the number; 1e5 is a whole one."""
    plain = text.replace("_", "").lower()
    number = float(plain.replace(".inf", "inf").replace(".nan", "nan"))
    if math.isinf(number) and not plain.endswith("inf"):
        raise ConfigError(f"{place}: the number {text} is too large to compute with")
    return int(number) if "." not in text and number.is_integer() else number


def _yaml_problem(text: str, line: int, error: yaml.MarkedYAMLError) -> str:
    lines = text.splitlines()
    written = lines[line - 1] if 0 < line <= len(lines) else ""
    if "\t" in written and "\\t" in str(error.problem):
        return "a tab stands where YAML needs spaces"
    return f"not YAML: {error.problem or error.context}"
