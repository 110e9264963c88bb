"""For all tests: no examples of hypothesis fail by the clock. A busy machine takes its time, and what takes too long is
measured by bench/."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("untimed", settings(), deadline=None)
settings.load_profile("untimed")
