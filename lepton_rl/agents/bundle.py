"""A policy bundle: a trained network with its codec, as a folder that needs no torch to run.

bundle.json    format, codec, network, cluster and experiment it was trained with, versions, validation results
weights.npz    the network's arrays, float32
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lepton_rl import __version__
from lepton_rl.agents.network import NETWORKS, Forward, Singles, expected_shapes, forward
from lepton_rl.core.actions import Action
from lepton_rl.core.atomic import replacing
from lepton_rl.core.cluster import ClusterSpec, cluster_from_description, describe_cluster
from lepton_rl.core.snapshot import Snapshot
from lepton_rl.envs.codec import NO_COSTS, OF_GROUPS, Codec, Observation, as_preferences, node_groups
from lepton_rl.envs.decision import Decision
from lepton_rl.envs.features import CONTEXT_FEATURES
from lepton_rl.envs.quantization import Quantization, feature_ranges
from lepton_rl.errors import BundleError, ConfigError
from lepton_rl.simulator import Timing

FORMAT = 1
BUNDLE_FOLDER = "bundle"
"""Where a run folder holds its bundle."""
BUNDLE_FILE = "bundle.json"
WEIGHTS_FILE = "weights.npz"
RANGE_KEY = "observation_range"
"""Under it a bundle keeps the least and the greatest of each feature that its training saw."""
QUANTIZATION_KEY = "quantization"
"""Under it a bundle says in how many bytes its network's observations were stored; without it, as float32."""
_MARGIN, _LEAST_MARGIN = 0.5, 0.25


@dataclass(frozen=True, eq=False)
class _Bounds:
    """What training saw of one entry of the observation: of each feature where `features` are named."""

    name: str
    low: Singles
    high: Singles
    features: tuple[str, ...] = ()

    @property
    def margin(self) -> Singles:
        """How far beyond them is still near: features are about 0 to 1, and training need not have seen all of it."""
        margin: Singles = np.maximum(_MARGIN * (self.high - self.low), _LEAST_MARGIN)
        return margin

    def sentence(self, policy: str, values: Singles, far: NDArray[np.bool_]) -> str:
        """Say which value is far off."""
        place = tuple(int(axis[0]) for axis in np.nonzero(far))
        column = place[-1] if self.features else ()
        what = f"{self.name} {self.features[place[-1]]}" if self.features else self.name
        return (
            f"{policy}: {what} is {values[place]:.3g}, its training saw {self.low[column]:.3g} to "
            f"{self.high[column]:.3g}"
        )


@dataclass(frozen=True, eq=False)
class LearnedPolicy:
    """A trained network as a policy. Within an instant it decides until it waits or nothing visible fits.

    Args:
        codec: How a snapshot becomes an observation.
        network: "mlp" or "deepsets".
        weights: The network's arrays by name.
        cluster: What it was trained on; an mlp runs on no other number of nodes.
        sample: Draw actions from the policy instead of taking the likeliest.
        seed: Of the draws.
        preferences: Weights of the objective's components, for a network trained on them; none are equal ones.
        about: Everything else that the bundle says.
        name: In tables and errors.
        quantization: How observations were stored in training: the network reads what that left of them.
    """

    codec: Codec
    network: str
    weights: Mapping[str, Singles]
    cluster: ClusterSpec
    sample: bool = False
    seed: int = 0
    preferences: Sequence[float] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    name: str = "learned"
    quantization: Quantization | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_generator", np.random.default_rng(self.seed))
        parts, count = self.preferences, self.codec.preferences
        if parts is not None and not count:
            raise BundleError(f"{self.name}: preferences: this network was trained without any")
        object.__setattr__(self, "_parts", None if parts is None else as_preferences(parts, count))
        entries = tuple(self.codec.shapes(self.cluster))
        object.__setattr__(self, "_forward", forward(self.network, self.weights, entries))
        object.__setattr__(self, "_room", None)
        object.__setattr__(self, "_bounds", _bounds(self.name, self.codec, self.cluster, self.about.get(RANGE_KEY)))

    @property
    def knows_ranges(self) -> bool:
        """Whether the bundle says what its training saw."""
        return bool(self._bounds)  # type: ignore[attr-defined]

    def out_of_range(self, snapshot: Snapshot) -> str:
        """Return in a sentence what of a snapshot is far from all that the training saw; nothing where it is not.

        Raises:
            BundleError: the network cannot read this cluster.
        """
        bounds: Sequence[_Bounds] = self._bounds  # type: ignore[attr-defined]
        if not bounds or len(snapshot.jobs) == (0 if self.codec.stoppable else snapshot.running_count):
            return ""
        self.check_cluster(snapshot.cluster)
        decision = self._open(snapshot)
        for entry in bounds:
            seen = decision.observation.get(entry.name)
            if seen is None:  # this cluster shows less than the one of the training
                continue
            values = seen[: decision.shown(entry.name)]
            far = np.isfinite(values) & ((values < entry.low - entry.margin) | (values > entry.high + entry.margin))
            if far.any():
                return entry.sentence(self.name, values, far)
        return ""

    @property
    def timing(self) -> Timing:
        """What stopping a job cost in training, where its actions stop jobs and the bundle says it; else nothing."""
        said = self.about.get("experiment")
        if not self.codec.stoppable or not isinstance(said, Mapping):
            return NO_COSTS
        costs = {name: said.get(name, 0.0) for name in ("preemption_cost", "migration_cost", "quantum")}
        try:
            return Timing(**costs)
        except ConfigError as error:
            raise BundleError(f"{self.name}: {error}") from None

    @property
    def placement(self) -> str:
        """Which GPUs a started job gets."""
        return self.codec.placement

    def decide(self, snapshot: Snapshot) -> list[Action]:
        """Return the actions of this instant, in order; each start with the power limits that it chose.

        Raises:
            BundleError: the network cannot read this cluster.
        """
        if len(snapshot.jobs) == (0 if self.codec.stoppable else snapshot.running_count):
            return []
        self.check_cluster(snapshot.cluster)
        decision = self._open(snapshot)
        actions: list[Action] = []
        while decision.is_due:
            choice = self.choose(decision.observation)
            if choice == decision.wait_action:
                break
            actions += decision.act(choice)
        return actions

    def _open(self, snapshot: Snapshot) -> Decision:
        """Open a decision in the room of the one before where it is large enough."""
        room: Decision | None = self._room  # type: ignore[attr-defined]
        if room is None or not room.holds(snapshot):
            parts: Singles | None = self._parts  # type: ignore[attr-defined]
            room = Decision(self.codec, snapshot.cluster, 2 * len(snapshot.jobs), parts)
            object.__setattr__(self, "_room", room)
        return room.show(snapshot)

    def check_cluster(self, cluster: ClusterSpec) -> None:
        """Refuse a cluster that the network cannot read, or on which its actions mean something else.

        Raises:
            BundleError: it is an mlp, trained on another number of nodes, or its actions name other groups.
        """
        if self.codec.actions != "order" and not cluster.groups:
            raise BundleError(
                f"{self.name}: its actions are about groups of nodes or power limits, and {cluster} has neither; give "
                "the cluster as groups"
            )
        names, own = ([group.limited_gpu.name for group in c.groups] for c in (cluster, self.cluster))
        choosing = self.codec.actions in OF_GROUPS and max(map(self.codec.choices, (cluster, self.cluster))) > 1
        if choosing and names != own:
            raise BundleError(
                f"{self.name}: its actions choose among groups of {', '.join(own)}, in this order, and this cluster's "
                f"are of {', '.join(names)}; numbers of nodes and GPUs may differ"
            )
        if self.network == "mlp" and node_groups(cluster.nodes) != node_groups(self.cluster.nodes):
            raise BundleError(
                f"{self.name}: this mlp bundle was trained on {self.cluster} and cannot read {cluster}; "
                "a deepsets network can"
            )

    def choose(self, observation: Observation) -> int:
        """Return the action for one observation."""
        compute: Forward = self._forward  # type: ignore[attr-defined]
        values = compute(observation if self.quantization is None else self.quantization.rounded(observation))
        if not self.sample:
            return int(values.argmax())
        generator: np.random.Generator = self._generator  # type: ignore[attr-defined]
        return int((values + generator.gumbel(size=len(values))).argmax())


def _bounds(name: str, codec: Codec, cluster: ClusterSpec, said: object) -> tuple[_Bounds, ...]:
    """Return what a bundle says of its training's observations; nothing where it says nothing.

    Raises:
        BundleError: it is not what this codec shows.
    """
    if not isinstance(said, Mapping):
        return ()
    features = {"queue": codec.feature_names, "context": tuple(CONTEXT_FEATURES)}
    if codec.stoppable:
        features["running"] = codec.running_names(cluster)
    found = []
    for entry, limits in said.items():
        try:
            low, high = (np.asarray(limit, np.float32) for limit in limits)
        except (TypeError, ValueError):
            raise BundleError(f"{name}: its {RANGE_KEY} of {entry!r} are no two lists of numbers") from None
        names = features.get(entry, ())
        if low.shape != high.shape or low.shape != ((len(names),) if names else ()):
            raise BundleError(f"{name}: its {RANGE_KEY} of {entry!r} are not those of its codec")
        if entry != "preferences":
            found.append(_Bounds(entry, low, high, names))
    return tuple(found)


def save_bundle(folder: Path, policy: LearnedPolicy, about: Mapping[str, Any]) -> Path:
    """Write a bundle in the place of what the folder held; `about` is stored beside codec, network and cluster.

    Raises:
        BundleError: the folder holds something else.
        OSError: it cannot be written.
    """
    folder = folder.absolute()
    for file in folder.iterdir() if folder.is_dir() else ():
        if file.name not in (BUNDLE_FILE, WEIGHTS_FILE):
            raise BundleError(f"{folder}: holds {file.name}, which is no part of a bundle; name a folder of its own")
    arrays: dict[str, Any] = {name: np.asarray(array) for name, array in policy.weights.items()}
    description = {
        "format": FORMAT,
        "lepton_rl": __version__,
        "codec": policy.codec.describe(),
        "network": policy.network,
        "cluster": describe_cluster(policy.cluster),
        "sample": policy.sample,
        **({} if policy.quantization is None else {QUANTIZATION_KEY: policy.quantization.describe()}),
        **about,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as draft:
        draft.mkdir()
        np.savez(draft / WEIGHTS_FILE, **arrays)
        (draft / BUNDLE_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return folder


def bundle_name(path: Path | str) -> str:
    """Return what a bundle is called: its run folder's name where it is called bundle, else its own."""
    place = Path(path).absolute()
    return place.parent.name if place.stem == BUNDLE_FOLDER and place.parent.name else place.stem


def load_bundle(path: Path | str, seed: int = 0, preferences: Sequence[float] | None = None) -> LearnedPolicy:
    """Load a bundle: its folder, a run folder that holds it as `bundle/`, or a zip of either's files.

    Args:
        path: of it.
        seed: of its draws, where it samples.
        preferences: weights of the objective's components, where it was trained on them.

    Raises:
        BundleError: there is none, it is damaged, or another version wrote it.
    """
    source = Path(path)
    if source.is_dir() and not (source / BUNDLE_FILE).is_file():
        source = source / BUNDLE_FOLDER
    place = f"{source / BUNDLE_FILE}"
    try:
        description, archive_bytes = _read(source)
        about = json.loads(description)
        if about.get("format") != FORMAT:
            raise BundleError(f"{place}: format {about.get('format')!r}, this lepton_rl reads format {FORMAT}")
        if about["network"] not in NETWORKS:
            raise BundleError(f"{place}: unknown network {about['network']!r}; known: {', '.join(NETWORKS)}")
        codec = _codec(place, about["codec"])
        cluster = cluster_from_description(about["cluster"])
        with np.load(BytesIO(archive_bytes), allow_pickle=False) as archive:
            weights = {name: np.asarray(archive[name], np.float32) for name in archive.files}
        _check_weights(place, about["network"], weights, codec, cluster)
        quantization = _quantization(about.get(QUANTIZATION_KEY), codec, cluster)
    except FileNotFoundError:
        raise BundleError(
            f"{path}: no policy bundle here (a bundle is a folder with {BUNDLE_FILE} and {WEIGHTS_FILE})"
        ) from None
    except OSError as error:
        raise BundleError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{place}: the bundle is damaged: this is no description of one") from error
    except (ValueError, ConfigError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path}: the bundle is damaged ({error})") from error
    return LearnedPolicy(
        codec,
        about["network"],
        weights,
        cluster,
        bool(about.get("sample")),
        seed,
        preferences,
        about,
        bundle_name(path),
        quantization,
    )


def _quantization(said: Any, codec: Codec, cluster: ClusterSpec) -> Quantization | None:
    """Return how a bundle's observations are quantized.

    Raises:
        ConfigError: it cannot be done, or not for what this codec shows.
    """
    if said is None:
        return None
    quantization = Quantization.from_description(said)
    expected = feature_ranges(codec, cluster)
    for name in sorted(expected.keys() | quantization.ranges.keys()):
        pair = quantization.ranges.get(name)
        if name not in expected or pair is None or pair[0].shape != expected[name][0].shape:
            raise ConfigError(f"its {QUANTIZATION_KEY} of {name!r} is not that of its codec")
    return quantization


def _codec(place: str, description: Any) -> Codec:
    try:
        return Codec.from_description(description)
    except BundleError as error:  # another version
        raise BundleError(f"{place}: {error}") from None


def _check_weights(
    place: str, network: str, weights: Mapping[str, Singles], codec: Codec, cluster: ClusterSpec
) -> None:
    """Refuse arrays that the compiled network would read beyond their ends, or that are no numbers."""
    expected = expected_shapes(network, weights, codec, cluster)
    for name in sorted(expected.keys() | weights.keys()):
        if name not in weights or name not in expected:
            raise BundleError(f"{place}: the weights {'lack' if name in expected else 'have a stray'} {name!r}")
        if weights[name].shape != expected[name]:
            raise BundleError(f"{place}: {name} has shape {weights[name].shape}, this codec needs {expected[name]}")
        if not np.isfinite(weights[name]).all():
            raise BundleError(f"{place}: {name} holds values that are no finite numbers")


def _read(source: Path) -> tuple[str, bytes]:
    """Return the two files of a bundle."""
    if source.suffix == ".zip":
        with zipfile.ZipFile(source) as archive:
            folder = next((name[: -len(BUNDLE_FILE)] for name in archive.namelist() if name.endswith(BUNDLE_FILE)), "")
            return archive.read(folder + BUNDLE_FILE).decode(), archive.read(folder + WEIGHTS_FILE)
    return (source / BUNDLE_FILE).read_text(), (source / WEIGHTS_FILE).read_bytes()
