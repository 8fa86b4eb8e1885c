"""Tests of devices run on a fake driver."""

from tests.fake_nvml.fixtures import devices, fake, fake_library

__all__ = ["devices", "fake", "fake_library"]
