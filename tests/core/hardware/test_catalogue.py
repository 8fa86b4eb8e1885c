"""The built-in GPU types: names, figures, sources, and the rules for what is left out."""

import math
import re
from dataclasses import replace
from importlib.resources import files

import pytest

from lepton_rl.core.hardware import JOB_CLASSES, aliases, gpu_type, gpu_types, make_gpu_type, power_under_limit
from lepton_rl.errors import ConfigError

ASKED_FOR = (
    "K80", "M40", "M60", "P4", "P40", "P100-PCIe", "P100-SXM2", "V100-16GB", "V100-32GB", "T4", "RTX 2080 Ti",
    "RTX 6000", "RTX 3060", "RTX 3070", "RTX 3080", "RTX 3080 Ti", "RTX 3090", "RTX 4060 Ti", "RTX 4070", "RTX 4080",
    "RTX 4090", "RTX 5070 Ti", "RTX 5080", "RTX 5090", "A2", "A10", "A16", "A30", "A40", "A6000", "RTX 6000 Ada",
    "RTX PRO 6000 Blackwell", "L4", "L40", "L40S", "A100-40GB", "A100-80GB", "H100-PCIe", "H100-SXM5", "H200", "B200",
    "GH200",
)  # fmt: skip
FIGURES = {"memory_gib": 24.0, "max_power_w": 300.0, "fp32_tflops": 15.7, "fp16_tflops": 125.0,
           "memory_bandwidth_gb_s": 900.0}  # fmt: skip


@pytest.mark.parametrize("name", ASKED_FOR)
def test_it_holds_the_cards_that_clusters_have(name: str) -> None:
    assert gpu_type(name).name in {gpu.name for gpu in gpu_types()}


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("A100-80GB", "A100-SXM4-80GB"),
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100-PCIe-80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100-PCIe-40GB"),
        ("nvidia h100 80gb hbm3", "H100-SXM5"),
        ("NVIDIA GeForce RTX 3080 Ti", "RTX 3080 Ti"),
        ("Tesla V100-SXM2-32GB", "V100-SXM2-32GB"),
        ("Tesla P100-PCIE-16GB", "P100-PCIe"),
        ("Quadro RTX 6000", "Quadro RTX 6000"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("V100M32", "V100-SXM2-32GB"),
        ("t4", "T4"),
    ],
)
def test_names_as_people_and_drivers_write_them(written: str, name: str) -> None:
    assert gpu_type(written).name == name


def test_an_unknown_name_brings_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no GPU type is called 'A1000'; did you mean 'A100'\? .*lepton-rl gpus"):
        gpu_type("A1000")
    with pytest.raises(ConfigError, match="no GPU type is called ''"):
        gpu_type("")


def test_every_alias_leads_back() -> None:
    for gpu in gpu_types():
        assert {gpu_type(alias).name for alias in (gpu.name, *aliases(gpu.name))} == {gpu.name}


def test_every_figure_has_a_source() -> None:
    for gpu in gpu_types():
        named = {"power_curve", *(f"speed.{job_class}" for job_class in JOB_CLASSES)}
        figures = {name for name in gpu.__slots__ if isinstance(getattr(gpu, name), float)}
        assert set(gpu.sources) == figures | named, gpu.name
        assert all(text.strip() for text in gpu.sources.values())
        assert "://" in gpu.sources["memory_gib"]
        assert {figure for figure, value in gpu.speed.items() if value <= 0} == set()


def test_every_source_of_the_file_is_used() -> None:
    text = files("lepton_rl.core.hardware").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    sources, _, gpus = text.partition("\ngpus:\n")
    keys = set(re.findall(r"^  ([\w-]+):", sources, re.MULTILINE))
    assert keys == set(re.findall(r"^    (?:datasheet|limits|idle|heat): (\S+)$", gpus, re.MULTILINE))


def test_figures_agree_with_each_other() -> None:
    for gpu in gpu_types():
        assert gpu.idle_power_w < gpu.min_power_limit_w <= gpu.max_power_w <= gpu.max_power_limit_w, gpu.name
        assert gpu.fp16_tflops >= gpu.fp32_tflops, gpu.name
        hottest = 30.0 + gpu.thermal_resistance_c_per_w * gpu.max_power_w
        assert hottest < gpu.throttle_temperature_c, gpu.name  # in inlet air as assumed no card slows itself
        assert gpu.speed["general"] == pytest.approx(
            math.prod(speed for name, speed in gpu.speed.items() if name != "general") ** 0.25, rel=2e-3
        )


def test_the_reference_is_1_and_generations_are_in_order() -> None:
    assert set(gpu_type("V100").speed.values()) == {1.0}
    names = ("K80", "P100", "V100", "A100", "H100", "H200", "B200")
    speeds = [gpu_type(name).speed["general"] for name in names]
    assert speeds == sorted(speeds)


def test_a_type_of_ones_own_follows_the_rules() -> None:
    own = make_gpu_type("mine", FIGURES, "a label")
    assert own.min_power_limit_w == 120.0  # 0.4 of the maximum
    assert own.max_power_limit_w == 300.0
    assert own.thermal_resistance_c_per_w == 0.15  # (85 - 10 - 30) / 300
    assert own.speed["vision"] == 1.0  # the V100's rate and bandwidth
    assert own.price_usd_per_hour is None
    assert own.sources["memory_gib"] == "a label"
    assert "rule" in own.sources["idle_power_w"]
    given = make_gpu_type("mine", {**FIGURES, "idle_power_w": 20.0, "min_power_limit_w": 150.0})
    assert (given.idle_power_w, given.min_power_limit_w) == (20.0, 150.0)


def test_no_limit_brings_a_card_below_its_idle_draw() -> None:
    own = make_gpu_type("mine", {**FIGURES, "idle_power_w": 160.0, "min_power_limit_w": 100.0})
    assert power_under_limit(200.0, 100.0, own.power_curve.lowest_held_w) == 160.0


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"memory_gb": 24.0}, "GPU 'mine' has no figure called 'memory_gb'; did you mean 'memory_gib'"),
        ({"max_power_w": 0.0}, "GPU 'mine': max_power_w must be above 0, not 0"),
        ({"memory_gib": math.nan}, "GPU 'mine': memory_gib must be above 0, not nan"),
        ({"idle_power_w": 301.0}, r"power must satisfy 0 <= idle \(301.0 W\) <= max \(300.0 W\)"),
        ({"price_usd_per_hour": -1.0}, "a rental price must be 0 or more, not -1.0 USD per hour"),
        ({"min_power_limit_w": 310.0}, "the lowest power limit, 310.0 W, is above the highest, 300.0 W"),
        ({"thermal_time_constant_s": 0.0}, "thermal_time_constant_s must be above 0, not 0.0"),
    ],
)
def test_a_wrong_figure_is_named(figures: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_gpu_type("mine", {**FIGURES, **figures})


def test_a_missing_figure_is_named() -> None:
    with pytest.raises(ConfigError, match="GPU 'mine': fp16_tflops, memory_bandwidth_gb_s must be given"):
        make_gpu_type("mine", {figure: FIGURES[figure] for figure in ("memory_gib", "max_power_w", "fp32_tflops")})


def test_speeds_are_checked() -> None:
    gpu = gpu_type("A100")
    with pytest.raises(ConfigError, match="no class of job called 'visoin'; did you mean 'vision'"):
        replace(gpu, speed={**gpu.speed, "visoin": 1.0})
    with pytest.raises(ConfigError, match="its speed for vision must be above 0, not -1"):
        replace(gpu, speed={**gpu.speed, "vision": -1.0})
    with pytest.raises(ConfigError, match="its speed for language, recommendation, speech, general is missing"):
        replace(gpu, speed={"vision": 1.0})


def test_a_power_limit_outside_the_range_is_refused() -> None:
    gpu = gpu_type("A100")
    assert gpu.checked_power_limit_w(100) == 100
    assert gpu.checked_power_limit_w(400) == 400
    for limit in (99.0, 401.0, math.nan):
        with pytest.raises(ConfigError, match=r"outside the range of A100-SXM4-80GB, 100 to 400 W"):
            gpu.checked_power_limit_w(limit)
