"""Policies by name: what there is, its settings, and how one is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError

from lepton_rl.agents.attained import DiscretisedLas, Gittins
from lepton_rl.agents.best_fit import BestFit
from lepton_rl.agents.cheapest import Cheapest
from lepton_rl.agents.compiled import BlockingName, PlacementName, policy_name
from lepton_rl.agents.dot_product import DotProduct
from lepton_rl.agents.drf import Drf
from lepton_rl.agents.energy import Energy
from lepton_rl.agents.fgd import Fgd
from lepton_rl.agents.finish_time import FinishTimeFairness
from lepton_rl.agents.gavel import GavelMaxMin, GavelMaxThroughput
from lepton_rl.agents.genetic import Genetic
from lepton_rl.agents.gpu_clustering import GpuClustering
from lepton_rl.agents.gpu_packing import GpuPacking
from lepton_rl.agents.greedy import Greedy
from lepton_rl.agents.greenest import Greenest
from lepton_rl.agents.least_loaded import LeastLoaded
from lepton_rl.agents.load_balancing import LoadBalancing
from lepton_rl.agents.predicted import Predicted
from lepton_rl.agents.priority import SCORES, HeapPriority, Power, Priority, Random, Reserve, ReserveSlowdown
from lepton_rl.agents.user_file import first_problem, load_policy
from lepton_rl.agents.weighted_placement import WeightedPlacement
from lepton_rl.core import Policy
from lepton_rl.errors import ConfigError, UnknownPolicy, nearest


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a policy, as text."""

    name: str
    type: str  # "number", "whole number", "text", or the choices: "head|skip"
    default: str
    help: str


@dataclass(frozen=True, slots=True)
class PolicyInfo:
    """What the list of policies shows."""

    name: str
    summary: str
    settings: tuple[Setting, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    model: type[BaseModel]
    summary: str
    fixed: Mapping[str, object]  # what the name already says


def _entries() -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {
        name: _Entry(Priority, score.summary, {"score": name}) for name, score in SCORES.items()
    }
    others: dict[str, tuple[type[BaseModel], str]] = {
        "heap_priority": (HeapPriority, "highest w1 compute + w2 time sensitivity + w3 memory first"),
        "power": (Power, "lowest GPUs^a x max(requested time, 10 s)^b first"),
        "reserve": (Reserve, "as power, but long jobs leave GPUs free for short ones to come"),
        "reserve_slowdown": (ReserveSlowdown, "reserve, tuned for bounded slowdown alone"),
        "random": (Random, "an order drawn once"),
        "dlas": (DiscretisedLas, "two queues by attained GPU-seconds, first the one with less; preempts"),
        "gittins": (Gittins, "highest Gittins index first, from the jobs that have finished; preempts"),
        "predicted": (Predicted, "shortest run time first, predicted from finished jobs like it"),
        "drf": (Drf, "the user, queue or project with the smallest GPU share now goes first"),
        "finish_time_fairness": (FinishTimeFairness, "highest rho first: late against an equal share of the cluster"),
        "gavel_max_min": (GavelMaxMin, "max-min fair shares of GPU types, kept to over time"),
        "gavel_max_throughput": (
            GavelMaxThroughput,
            "shares of GPU types with the most work done, kept to over time",
        ),
        "greedy": (Greedy, "dominant-resource best fit, ties by least energy"),
        "least_loaded": (LeastLoaded, "each job on the node of which the smallest part is held"),
        "load_balancing": (LoadBalancing, "an order, and migration from overloaded to underloaded or faster GPUs"),
        "energy": (Energy, "each job on the type of GPU that spends the fewest joules on it"),
        "cheapest": (Cheapest, "each job where the rent of its GPUs until it is done is least"),
        "greenest": (Greenest, "each job on the type of GPU whose run from now on causes the least carbon"),
        "best_fit": (BestFit, "each job on the node that has the least left of all resources once it is there"),
        "dotprod": (DotProduct, "each job where the dot product of demand and free resources is smallest"),
        "gpu_packing": (GpuPacking, "GPUs in use first, then free ones of nodes in use, then idle nodes"),
        "gpu_clustering": (GpuClustering, "jobs of like demand on the same nodes"),
        "fgd": (Fgd, "each job where the fragmentation expected by typical demands grows least"),
        "weighted_placement": (WeightedPlacement, "load, availability and energy of the nodes in one weighted score"),
        "genetic": (Genetic, "plans order and placement by a genetic algorithm"),
    }
    return entries | {name: _Entry(model, summary, {}) for name, (model, summary) in others.items()}


_ENTRIES = _entries()


def policies() -> tuple[PolicyInfo, ...]:
    """Return every policy that has a name, with its settings."""
    return tuple(PolicyInfo(name, entry.summary, _settings(entry)) for name, entry in _ENTRIES.items())


def make_policy(spec: str | Mapping[str, object] | Policy, *, base: Path | None = None, **settings: object) -> Policy:
    """Return the policy that `spec` describes.

    Args:
        spec: a name ("sjf"); a mapping with `name` and settings ({"name": "sjf", "blocking": "easy"}); a
        class
            in a file of one's own ("path/to/file.py:Name"); a bundle (a folder or .zip); or a policy.
        base: folder that relative paths start from; the working directory if None.
        settings: of the policy; they go before those of a mapping.

    Raises:
        UnknownPolicy: nothing is found under that name or path.
        ConfigError: a setting does not exist or has a wrong value.
        BundleError: the bundle cannot be used.
    """
    if isinstance(spec, Mapping):
        rest = {str(key): value for key, value in spec.items()}
        name = rest.pop("name", None)
        if not isinstance(name, str):
            raise ConfigError("a policy's settings must hold its name, as in {name: sjf, blocking: easy}")
        return make_policy(name, base=base, **{**rest, **settings})
    if not isinstance(spec, str):
        return spec if not settings else _remade(spec, settings)
    if spec in _ENTRIES:
        entry = _ENTRIES[spec]
        for key in settings:
            if key in entry.fixed or key not in entry.model.model_fields:
                known = [setting.name for setting in _settings(entry)]
                raise ConfigError(
                    f"{spec}: {key}: unknown setting{nearest(key, known)}; its settings: {', '.join(known)}"
                )
        return _made(spec, entry.model, {**settings, **entry.fixed})
    file, colon, class_name = spec.rpartition(":")
    if colon and file.endswith(".py"):
        return load_policy(_resolved(file, base), class_name, settings)
    if spec.endswith(".py"):
        raise UnknownPolicy(f"{spec}: name the class too, as in {spec}:ClassName")
    path = _resolved(spec, base)
    if path.is_dir() or path.suffix == ".zip":
        return _bundle(path, settings)
    if "/" in spec:
        raise UnknownPolicy(f"{spec}: there is no such bundle (a folder or .zip) and no such file.py:Name")
    raise UnknownPolicy(f"no policy named {spec!r}{nearest(spec, _ENTRIES) or '; known: ' + ', '.join(_ENTRIES)}")


def with_rules(policy: Policy, blocking: BlockingName | None = None, placement: PlacementName | None = None) -> Policy:
    """Return the policy with these rules as its settings.

    Raises:
        ConfigError: the policy has no such setting, or not that value.
    """
    wanted = {name: value for name, value in (("blocking", blocking), ("placement", placement)) if value is not None}
    fields: Mapping[str, object] = type(policy).model_fields if isinstance(policy, BaseModel) else {}
    for name, value in wanted.items():
        if name not in fields:
            raise ConfigError(f"{policy_name(policy)} has no {name} setting, so that {name} {value!r} cannot be used")
    return _remade(policy, wanted) if wanted else policy


def _made(name: str, model: type[BaseModel], settings: Mapping[str, object]) -> Policy:
    try:
        return cast(Policy, model(**settings))
    except ValidationError as error:
        raise ConfigError(f"{name}: {first_problem(error)}") from None


def _remade(policy: Policy, settings: Mapping[str, object]) -> Policy:
    if not isinstance(policy, BaseModel):
        raise ConfigError(f"{policy_name(policy)} is made already and takes no settings")
    for key in settings:
        if key not in type(policy).model_fields:
            raise ConfigError(f"{policy_name(policy)}: {key}: unknown setting{nearest(key, type(policy).model_fields)}")
    return _made(policy_name(policy), type(policy), {**policy.model_dump(), **settings})


def _bundle(path: Path, settings: Mapping[str, object]) -> Policy:
    from lepton_rl.agents.bundle import load_bundle

    for key in settings:
        if key not in ("seed", "preferences"):
            raise ConfigError(f"{path}: {key}: unknown setting; a bundle takes a seed and preferences")
    seed = settings.get("seed", 0)
    if not isinstance(seed, int):
        raise ConfigError(f"{path}: seed: must be a whole number, not {seed!r}")
    preferences = settings.get("preferences")
    if preferences is not None and not isinstance(preferences, list | tuple):
        raise ConfigError(f"{path}: preferences: must be a list of numbers, not {preferences!r}")
    return load_bundle(path, seed=seed, preferences=preferences)


def _resolved(path: str, base: Path | None) -> Path:
    return (base or Path()) / Path(path).expanduser()


def _settings(entry: _Entry) -> tuple[Setting, ...]:
    return tuple(
        Setting(
            name=name,
            type=_type_text(field.annotation),
            default=_value_text(field.default),
            help=field.description or "",
        )
        for name, field in entry.model.model_fields.items()
        if name not in entry.fixed
    )


def _type_text(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    parts = [part for part in get_args(annotation) if part is not NoneType]
    if parts:
        return f"{'|'.join(map(_type_text, parts))}|none"
    return {int: "whole number", float: "number", str: "text", bool: "true|false"}.get(annotation, "value")


def _value_text(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
