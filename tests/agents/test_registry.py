"""Policies by name, by mapping, by file; and what is said when something is wrong."""

import re
from pathlib import Path
from textwrap import dedent

import pytest
from pydantic import BaseModel

from lepton_rl.agents import (
    SLOWDOWN_TUNING,
    Genetic,
    Greedy,
    HeapPriority,
    Priority,
    Reserve,
    ReserveSlowdown,
    make_policy,
    policies,
    policy_name,
    with_rules,
)
from lepton_rl.core import Action, Policy, Snapshot
from lepton_rl.errors import BundleError, ConfigError, UnknownPolicy

NAMES = [
    "fcfs",
    "sjf",
    "ljf",
    "smallest",
    "saf",
    "f1",
    "f2",
    "f3",
    "f4",
    "wfp3",
    "unicep",
    "srtf",
    "las",
    "edf",
    "llf",
    "heap_priority",
    "power",
    "reserve",
    "reserve_slowdown",
    "random",
    "dlas",
    "gittins",
    "predicted",
    "drf",
    "finish_time_fairness",
    "gavel_max_min",
    "gavel_max_throughput",
    "greedy",
    "least_loaded",
    "load_balancing",
    "energy",
    "cheapest",
    "greenest",
    "best_fit",
    "dotprod",
    "gpu_packing",
    "gpu_clustering",
    "fgd",
    "weighted_placement",
    "genetic",
]


class Idle:
    def decide(self, snapshot: Snapshot) -> list[Action]:
        return []


def test_every_policy_is_listed_and_can_be_made() -> None:
    listed = policies()
    assert [info.name for info in listed] == NAMES
    for info in listed:
        assert info.summary
        assert isinstance(make_policy(info.name), Policy)
        for setting in info.settings:
            assert setting.help
            assert setting.type != "value"


def test_settings_of_one_policy() -> None:
    sjf = next(info for info in policies() if info.name == "sjf")
    assert [(s.name, s.type, s.default) for s in sjf.settings] == [
        ("blocking", "head|skip|easy|conservative", "head"),
        ("placement", "first|best|worst|consolidated|none", "none"),
    ]
    tuned = next(info for info in policies() if info.name == "reserve_slowdown")
    assert {s.name: s.default for s in tuned.settings}["rho"] == "0.7"


def test_made_from_names_mappings_and_policies() -> None:
    assert make_policy("sjf") == Priority(score="sjf")
    assert make_policy("sjf", blocking="easy") == Priority(score="sjf", blocking="easy")
    assert make_policy({"name": "saf", "placement": "best"}) == Priority(score="saf", placement="best")
    assert make_policy({"name": "saf", "blocking": "skip"}, blocking="easy") == Priority(score="saf", blocking="easy")
    assert make_policy("reserve_slowdown", a=2) == ReserveSlowdown(a=2)
    assert policy_name(make_policy("reserve_slowdown")) == "reserve_slowdown"
    assert make_policy("reserve_slowdown") == ReserveSlowdown.model_validate(SLOWDOWN_TUNING)
    assert make_policy("heap_priority", memory_scale=80) == HeapPriority(memory_scale=80.0)
    assert make_policy(Greedy()) == Greedy()
    assert make_policy(Greedy(), placement="first") == Greedy(placement="first")


@pytest.mark.parametrize(
    ("spec", "settings", "error", "sentence"),
    [
        (
            "sfj",
            {},
            UnknownPolicy,
            r"^no policy named 'sfj'; did you mean 'sjf'\?$",
        ),
        ("FCFS", {}, UnknownPolicy, r"^no policy named 'FCFS'; did you mean 'fcfs'\?$"),
        ("zzz", {}, UnknownPolicy, r"^no policy named 'zzz'; known: "),
        ("runs/old", {}, UnknownPolicy, "there is no such bundle"),
        (
            "sjf",
            {"blokcing": "easy"},
            ConfigError,
            r"unknown setting; did you mean 'blocking'\?; its settings: blocking, placement$",
        ),
        ("sjf", {"score": "saf"}, ConfigError, "^sjf: score: unknown setting"),
        ("sjf", {"blocking": "hed"}, ConfigError, "^sjf: blocking: 'hed' is not one of 'head', 'skip'"),
        ("srtf", {"blocking": "easy"}, ConfigError, "^srtf is preemptive"),
        ("genetic", {"window": 1}, ConfigError, "^genetic: window: must be greater than or equal to 2, not 1$"),
        ({"blocking": "easy"}, {}, ConfigError, "must hold its name"),
        (Greedy(), {"blocking": "easy"}, ConfigError, "^greedy: blocking: unknown setting"),
        (Idle(), {"a": 1}, ConfigError, "^Idle is made already"),
        ("mine.py", {}, UnknownPolicy, r"name the class too, as in mine\.py:ClassName"),
        ("mine.py:Mine", {}, UnknownPolicy, r"^mine\.py: there is no such file$"),
    ],
)
def test_errors_are_sentences(spec: object, settings: dict[str, object], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence) as caught:
        make_policy(spec, **settings)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.py"
    path.write_text(dedent(text))
    return path


MINE = """
    class Mine:
        name = "mine"

        def __init__(self, patience=3):
            if patience < 0:
                raise ValueError("patience must be 0 or more")
            self.patience = patience

        def decide(self, snapshot):
            return []


    class Silent:
        pass
"""


def test_a_class_in_a_file(tmp_path: Path) -> None:
    write(tmp_path, MINE)
    policy = make_policy("mine.py:Mine", base=tmp_path, patience=5)
    assert policy_name(policy) == "mine"
    assert policy.patience == 5  # type: ignore[attr-defined]
    also = make_policy({"name": f"{tmp_path}/mine.py:Mine", "patience": 7})
    assert also.patience == 7  # type: ignore[attr-defined]


def test_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_mine.py").write_text("class Base:\n    def decide(self, snapshot):\n        return []\n")
    write(tmp_path, "import neighbour_of_mine\n\nclass Mine(neighbour_of_mine.Base):\n    pass\n")
    assert policy_name(make_policy("mine.py:Mine", base=tmp_path)) == "Mine"


@pytest.mark.parametrize(
    ("text", "name", "settings", "error", "sentence"),
    [
        (
            MINE,
            "Mime",
            {},
            UnknownPolicy,
            r"no class 'Mime'; did you mean 'Mine'\?; its classes: Mine, Silent$",
        ),
        ("x = 1", "Mine", {}, UnknownPolicy, "there is no class 'Mine'; it defines no class$"),
        (MINE, "Silent", {}, UnknownPolicy, r"class Silent has no method decide\(self, snapshot\)$"),
        (
            MINE,
            "Mine",
            {"patience": -1},
            ConfigError,
            r"\(patience=-1\) failed: mine\.py:7: ValueError: patience must be 0 or more$",
        ),
        (MINE, "Mine", {"courage": 1}, ConfigError, "Mine: courage: unknown setting; its settings: patience$"),
        (MINE, "Mine", {"patiense": 1}, ConfigError, "patiense: unknown setting; did you mean 'patience'"),
        ("class Mine:\n    decide = print", "Mine", {"a": 1}, ConfigError, "Mine: a: unknown setting; it has no"),
        (
            "class Mine:\n    decide = print\n    def __init__(self, a): pass",
            "Mine",
            {},
            ConfigError,
            "Mine: a: a value is required$",
        ),
        ("\0", "Mine", {}, ConfigError, "mine.py cannot be imported: [A-Z][A-Za-z]+Error: [^:]*$"),
        (
            "import math\nmath.nothing",
            "Mine",
            {},
            ConfigError,
            r"mine\.py cannot be imported: mine\.py:2: AttributeError: ",
        ),
        (
            "def f(:\n  pass",
            "Mine",
            {},
            ConfigError,
            r"mine\.py cannot be imported: .*mine\.py:1: SyntaxError: ",
        ),
        (
            "class Mine:\n  @property\n  def name(self):\n    return 1 / 0\n  def decide(self, s): ...",
            "Mine",
            {},
            ConfigError,
            r"Mine\(\) failed: mine\.py:4: ZeroDivisionError: ",
        ),
        (
            "import nosuchmodule",
            "Mine",
            {},
            ConfigError,
            r"mine\.py:1: ModuleNotFoundError: No module named 'nosuchmodule'$",
        ),
    ],
)
def test_errors_in_a_file_are_sentences(
    tmp_path: Path, text: str, name: str, settings: dict[str, object], error: type[Exception], sentence: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(error, match=sentence) as caught:
        make_policy({"name": f"{path}:{name}", **settings})
    assert "\n" not in str(caught.value)


def test_a_pydantic_class_in_a_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        from pydantic import BaseModel, Field

        class Mine(BaseModel):
            patience: int = Field(default=3, ge=0)

            def decide(self, snapshot):
                return []
        """,
    )
    assert isinstance(make_policy(f"{path}:Mine", patience=1), BaseModel)
    with pytest.raises(ConfigError, match=r"Mine: patience: must be greater than or equal to 0, not -1$"):
        make_policy(f"{path}:Mine", patience=-1)


def test_a_folder_is_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no policy bundle here"):
        make_policy(str(tmp_path))
    with pytest.raises(ConfigError, match="window: unknown setting; a bundle takes a seed and preferences"):
        make_policy(str(tmp_path), window=3)
    with pytest.raises(ConfigError, match="seed: must be a whole number, not 'a'"):
        make_policy(str(tmp_path), seed="a")


def test_rules_from_outside() -> None:
    assert with_rules(Priority(score="sjf"), "easy", "best") == Priority(score="sjf", blocking="easy", placement="best")
    assert with_rules(Greedy()) == Greedy()
    assert with_rules(Greedy(), None, "worst") == Greedy(placement="worst")
    assert with_rules(Genetic(), None, "first") == Genetic(placement="first")
    idle = Idle()
    assert with_rules(idle) is idle
    with pytest.raises(ConfigError, match="greedy has no blocking setting, so that blocking 'easy' cannot be used"):
        with_rules(Greedy(), "easy", "worst")
    with pytest.raises(ConfigError, match="Idle has no placement setting, so that placement 'first' cannot be used"):
        with_rules(idle, None, "first")
    with pytest.raises(ConfigError, match=re.escape("reserve: blocking: 'easy' is not one of 'head' or 'skip'")):
        with_rules(Reserve(), "easy")
