"""A policy from a file of the user's own: `path/to/file.py:Name`."""

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel, ValidationError

from lepton_rl.core import Policy
from lepton_rl.errors import ConfigError, LeptonError, UnknownPolicy, in_words, nearest

MODULE_PREFIX = "lepton_rl_policy_file_"
FAILURES = (Exception, SystemExit)
"""What a user's code may raise without ending the program: `sys.exit` in it is its failure, not our end."""
READ = ("name", "needs_requested_times", "placement")
"""Attributes that are read where a policy has them; a property that fails shall fail here."""


def load_policy(path: Path, class_name: str, settings: Mapping[str, object]) -> Policy:
    """Run the file and return `class_name(**settings)`.

    Raises:
        UnknownPolicy: there is no such file or class, or the class does not decide.
        ConfigError: the file or the class's constructor fails.
    """
    if not path.is_file():
        raise UnknownPolicy(f"{path}: there is no such file")
    module = _run(path)
    classes = [
        name for name, value in vars(module).items() if isinstance(value, type) and value.__module__ == module.__name__
    ]
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        known = f"; its classes: {', '.join(classes)}" if classes else "; it defines no class"
        raise UnknownPolicy(f"{path}: there is no class {class_name!r}{nearest(class_name, classes)}{known}")
    if not callable(getattr(found, "decide", None)):
        raise UnknownPolicy(f"{path}: class {class_name} has no method decide(self, snapshot)")
    if not issubclass(found, BaseModel):  # a pydantic model speaks for itself
        _check_settings(path, found, settings)
    try:
        policy: Policy = found(**settings)
        for name in READ:
            if hasattr(found, name):
                getattr(policy, name)
    except LeptonError:
        raise
    except ValidationError as error:
        raise ConfigError(f"{path}: {class_name}: {first_problem(error)}") from None
    except FAILURES as error:
        raise ConfigError(f"{path}: {class_name}({_written(settings)}) failed: {where(error, path)}") from error
    return policy


def _check_settings(path: Path, policy: type, settings: Mapping[str, object]) -> None:
    """Hold settings to the arguments of the constructor.

    Raises:
        ConfigError: one is unknown, or one without a default is not given.
    """
    try:
        parameters = inspect.signature(policy).parameters.values()
    except (TypeError, ValueError):
        return  # a constructor in C has no signature: what it raises will do
    named = {p.name: p.default for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        unknown = next((name for name in settings if name not in named), None)
        if unknown is not None:
            known = f"its settings: {', '.join(named)}" if named else "it has no settings"
            raise ConfigError(
                f"{path}: {policy.__name__}: {unknown}: unknown setting{nearest(unknown, named)}; {known}"
            )
    missing = next((name for name in named if named[name] is inspect.Parameter.empty and name not in settings), None)
    if missing is not None:
        raise ConfigError(f"{path}: {policy.__name__}: {missing}: a value is required")


def where(error: BaseException, path: Path | None = None) -> str:
    """Return `file.py:LINE: Kind: message` of the innermost frame in `path`, or in any policy file."""
    kind = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
    if isinstance(error, SyntaxError):
        place = (
            f"{error.filename}:{error.lineno}: " if error.filename and error.lineno else ""
        )  # a binary file has none
        return f"{place}{type(error).__name__}: {error.msg}"
    frames = [
        (frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__", "")).startswith(MODULE_PREFIX)
    ]
    inside = [(name, line) for name, line in frames if path is None or Path(name) == path.resolve()]
    return f"{Path(inside[-1][0]).name}:{inside[-1][1]}: {kind}" if inside else kind


def first_problem(error: ValidationError) -> str:
    """Return the first complaint of pydantic as `setting: what is wrong`."""
    problem = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "missing":
        return f"{name}: a value is required"
    return f"{name}: {in_words(problem)}" if name else in_words(problem)


def _run(path: Path) -> ModuleType:
    """Import the file under a name of its own; files beside it can be imported from it."""
    location = path.resolve()
    digest = hashlib.sha256(str(location).encode()).hexdigest()[:12]
    name = f"{MODULE_PREFIX}{digest}_{location.stem}"
    spec = importlib.util.spec_from_file_location(name, location)
    if spec is None or spec.loader is None:
        raise UnknownPolicy(f"{path}: this is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(location.parent))
    try:
        spec.loader.exec_module(module)
    except FAILURES as error:
        del sys.modules[name]
        raise ConfigError(f"{path} cannot be imported: {where(error, path)}") from error
    finally:
        sys.path.remove(str(location.parent))
    return module


def _written(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in settings.items())
