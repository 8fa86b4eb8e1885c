"""A policy in an experiment file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationInfo, model_serializer, model_validator

from lepton_rl.agents import make_policy, policies
from lepton_rl.agents.bundle import BUNDLE_FOLDER, bundle_name
from lepton_rl.core import Policy
from lepton_rl.experiments.loader import Section, input_path, or_value_error


class PolicyConfig(Section):
    """A policy's name, a bundle's path or file.py:Name, alone or in a mapping with settings and a label."""

    name: str = Field(min_length=1, description="a known policy, the path of a bundle, or file.py:Name")
    label: str = Field(default="", description="name in tables")
    settings: dict[str, Any] = Field(default_factory=dict, description="the policy's own settings")

    @model_validator(mode="before")
    @classmethod
    def _gather_settings(cls, value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, Mapping):
            return value
        if not isinstance(value.get("name"), str) or not isinstance(value.get("settings", {}), Mapping):
            return {key: entry for key, entry in value.items() if key in cls.model_fields}
        settings = {key: entry for key, entry in value.items() if key not in ("name", "label", "settings")}
        if settings and "settings" in value:
            raise ValueError("give settings beside the name, as in {name: sjf, blocking: easy}")
        if "label" in value and not str(value["label"] or "").strip():
            raise ValueError("a label must not be empty; leave it out to have the policy's own name")
        name = value["name"]
        path = str(input_path(name, info))
        known = {info.name for info in policies()}
        if name not in known and (_is_path(name) or Path(path).is_dir()):
            name = path
        else:
            or_value_error(lambda: make_policy({"name": name, **(settings or value.get("settings", {}))}))
        return {
            "name": name,
            "label": value.get("label") or "",
            "settings": settings or value.get("settings", {}),
        }

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self.label:
            object.__setattr__(self, "label", self._own_label())
        return self

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {"name": self.name, "label": self.label, **self.settings}

    @property
    def is_learned(self) -> bool:
        """Whether it is a bundle and no heuristic."""
        return _is_path(self.name) and ".py:" not in self.name

    @property
    def source(self) -> Path | None:
        """The file or folder that it is read from: of a run folder the bundle alone; None for a known policy."""
        if not _is_path(self.name):
            return None
        if not self.is_learned:
            return Path(self.name.rpartition(":")[0])
        bundle = Path(self.name) / BUNDLE_FOLDER
        return bundle if bundle.is_dir() else Path(self.name)

    @property
    def policy(self) -> str:
        """What results call it: the label that the file gives, else the bare name, without its settings."""
        return self._bare_name() if self.label == self._own_label() else self.label

    def build(self, **defaults: object) -> Policy:
        """Return the policy; `defaults` fill settings that it has and the file does not give."""
        missing = {key: value for key, value in defaults.items() if key not in self.settings}
        if self.is_learned:  # a bundle's one setting: its draws, where it samples
            seed = {key: value for key, value in missing.items() if key == "seed"}
            return make_policy({"name": self.name, **self.settings, **seed})
        policy = make_policy({"name": self.name, **self.settings})
        fields: Mapping[str, object] = getattr(type(policy), "model_fields", {})
        extra: dict[str, Any] = {key: value for key, value in missing.items() if key in fields}
        return make_policy(policy, **extra) if extra else policy

    def _bare_name(self) -> str:
        if not _is_path(self.name):
            return self.name
        file, _, name = self.name.rpartition(".py:")
        return name if file else bundle_name(self.name)

    def _own_label(self) -> str:
        blocking = self.settings.get("blocking")
        placement = self.settings.get("placement")
        return " ".join([self._bare_name(), *(str(word) for word in (blocking, placement) if word is not None)])


def _is_path(name: str) -> bool:
    return "/" in name or ".py:" in name or name.endswith((".zip", ".py"))
