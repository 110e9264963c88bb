"""Hypothesis as `make mutants` wants it: that a test fails is enough, nobody reads the smallest example of it."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

if os.environ.get("GPUPORTION_TEST_MUTANTS"):
    settings.register_profile(
        "mutants",
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=(HealthCheck.too_slow,),
    )
    settings.load_profile("mutants")
