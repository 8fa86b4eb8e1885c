"""From a YAML file and overrides to a checked, frozen model; every complaint names its file and line."""

import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from lepton_rl.errors import ConfigError, LeptonError, in_words, nearest
from lepton_rl.experiments.yaml_tree import OVERRIDE, CommandLineText, Node, override, read
from lepton_rl.workloads.formats import DATA_PREFIX

Built = TypeVar("Built")


class Section(BaseModel):
    """Base of everything that an experiment file holds: frozen, without unknown keys, infinities and NaN.

    Where None is allowed it is the default, so that `resolved_yaml` may leave it out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Model = TypeVar("Model", bound=BaseModel)


def input_path(value: object, info: ValidationInfo) -> object:
    """Make a path absolute: from the YAML's folder, or from the working directory where an override gave it.

    `data:REST` stays as it is, so that a resolved file serves on another machine.
    """
    if not isinstance(value, str) or value.startswith(DATA_PREFIX):
        return value
    if not value:
        raise ValueError("must not be empty")
    base = Path() if isinstance(value, CommandLineText) else (info.context or {}).get("base", Path())
    return str((base / Path(value).expanduser()).absolute())


InputPath = Annotated[str, BeforeValidator(input_path)]
"""A file to read; `lepton_rl.workloads.resolve_data_path` opens `data:REST`."""


def load(path: str | Path, model: type[Model], overrides: Iterable[str] = ()) -> Model:
    """Read one experiment.

    Args:
        path: the YAML file; relative paths in it start from its folder.
        model: what the file must hold.
        overrides: "key.path=value"; relative paths in them start from the working directory.

    Raises:
        ConfigError: names file, line, key, what is wrong, and the nearest right name.
    """
    return checked(tree_of(path, overrides), Path(path).absolute().parent, model)


def tree_of(path: str | Path, overrides: Iterable[str] = ()) -> Node:
    """Read an experiment file with its overrides, unchecked."""
    tree = read(Path(path))
    for text in overrides:
        override(tree, text)
    return tree


def checked(tree: Node, base: Path, model: type[Model]) -> Model:
    """Return the model that a tree holds."""
    try:
        return model.model_validate(tree.plain(), context={"base": base})
    except ValidationError as error:
        problems = error.errors(include_url=False)
        if other := _other_kind(tree, model):
            raise ConfigError(other) from None
        if isinstance(wrong := problems[0].get("ctx", {}).get("error"), Clash):
            raise clash(tree, str(problems[0]["loc"][0]), str(wrong), wrong.entries) from None
        if isinstance(wrong, Misplaced):
            _, path, place = tree.at((*problems[0]["loc"], *wrong.path))
            raise ConfigError(f"{place}: {'.'.join(path)}: {wrong}") from None
        raise ConfigError(_sentence(problems, tree, model)) from None


def options(model: type[Model], **values: Any) -> Model:
    """Return the model made of command-line options; relative paths start from the working directory."""
    given = {key: value for key, value in values.items() if value is not None}
    try:
        return model.model_validate(given)
    except ValidationError as error:
        sentence = _sentence(error.errors(include_url=False), Node.of(given), model)
        raise ConfigError(sentence.removeprefix(": ")) from None


def resolved_yaml(model: BaseModel) -> str:
    """Return the whole experiment, defaults included, as a file that `load` reads."""
    plain = model.model_dump(mode="json", exclude_none=True)
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110))


def or_value_error(check: Callable[[], object]) -> None:
    """Call `check` in a validator: our own errors become the kind that gets a place in the file."""
    try:
        check()
    except LeptonError as error:
        raise ValueError(str(error)) from None


class Misplaced(ValueError):
    """In a validator of the whole: what is wrong at a place below it, by keys and indices."""

    def __init__(self, text: str, path: Sequence[int | str]) -> None:
        super().__init__(text)
        self.path = path


class Clash(ValueError):
    """In a validator of a list: entries of it that may not stand beside each other."""

    def __init__(self, text: str, entries: Sequence[int]) -> None:
        super().__init__(text)
        self.entries = entries


def clash(tree: Node, key: str, text: str, entries: Sequence[int]) -> ConfigError:
    """Return the complaint of entries of a list that may not stand beside each other, with the place of one.

    It is the last that the command line gave: the file alone may be right. Else it is the last.
    """
    found = [tree.at((key, entry))[1:] for entry in entries]
    path, place = max(found, key=lambda entry: (entry[1].startswith(OVERRIDE), found.index(entry)))
    return ConfigError(f"{place}: {'.'.join(path)}: {text}")


_MARKS = {
    "train": frozenset(("episode", "observation", "objective", "agent", "training", "validation")),
    "benchmark": frozenset(("workloads", "policies", "protocol", "repick_policies")),
}
"""Keys at the top of an experiment file that only one command reads."""


def _other_kind(tree: Node, model: type[BaseModel]) -> str | None:
    """Return a sentence where the file, overrides apart, is plainly for another command."""
    written = {key: place for key, place in tree.key_places.items() if not place.startswith(OVERRIDE)}
    if any(marks & set(model.model_fields) & set(written) for marks in _MARKS.values()):
        return None
    for command, marks in _MARKS.items():
        key = next((key for key in written if key in marks), None)
        if key is not None and model.model_fields.keys() & set().union(*_MARKS.values()):
            file = written[key].rpartition(":")[0]
            return f"{written[key]}: {key}: this is a file for another command; use: lepton-rl {command} {file}"
    return None


def _sentence(problems: Sequence[ErrorDetails], tree: Node, model: type[BaseModel]) -> str:
    """Return the complaint that explains most, with its place."""
    problem = _most_telling(problems, tree)
    location = problem["loc"]
    node, path, place = tree.at(location)
    name = f"{'.'.join(path)}: " if path else ""
    if problem["type"] == "extra_forbidden":
        known = sorted(_fields_at(model, location[:-1]))
        close = nearest(path[-1], known)
        return f"{place}: {name}unknown key{close or '; known: ' + ', '.join(known)}"
    if problem["type"] == "missing" and isinstance(node.value, list):
        length = 1 + max(int(other["loc"][-1]) for other in problems if other["loc"][:-1] == location[:-1])
        return f"{place}: {name}must be a list of {length}, not of {len(node.value)}"
    if problem["type"] == "missing":
        return f"{node.place}: {'.'.join([*path, str(location[-1])])}: is missing"
    return f"{place}: {name}{in_words(problem)}"


def _most_telling(problems: Sequence[ErrorDetails], tree: Node) -> ErrorDetails:
    """Return the problem to speak of.

    A misspelt key often leaves another one missing: the misspelling explains both. Of the branches of a union
    (a number, or a list of two), the one that fits the kind of the value knows what is wrong with it.
    """
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    _, path, _ = tree.at(first["loc"])
    branches = [problem for problem in problems if tree.at(problem["loc"])[1][: len(path)] == path]
    return next((problem for problem in branches if not _is_of_other_kind(problem)), first)


def _is_of_other_kind(problem: ErrorDetails) -> bool:
    """Whether a branch wants another kind of value altogether: a number or a word, say, in place of a mapping."""
    is_word_wanted = problem["type"] == "literal_error"
    return problem["type"].endswith("_type") or (is_word_wanted and isinstance(problem["input"], dict | list))


def _fields_at(model: type[BaseModel], location: Sequence[int | str]) -> set[str]:
    """Return the keys that the models at a location know (several where the type is a union)."""
    candidates = {model}
    for part in location:
        fields = [m.model_fields[part].annotation for m in candidates if part in m.model_fields]
        # a part that is no field is a list's index, a mapping's key or the branch of a union
        candidates = {found for field in fields for found in _models(field)} if fields else candidates
    return {name for candidate in candidates for name in candidate.model_fields}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, types.UnionType, tuple, list, dict):
        for part in get_args(annotation):
            yield from _models(part)


def build_at(path: Sequence[int | str], build: Callable[..., Built], *arguments: Any) -> Built:
    """Build a part of the cluster; what is wrong with it gets its place in the file."""
    try:
        return build(*arguments)
    except Misplaced as error:
        raise Misplaced(str(error), (*path, *error.path)) from None
    except LeptonError as error:
        raise Misplaced(str(error), path) from None
