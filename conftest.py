"""What holds for all tests: none is timed, since speed is measured by ``make perf`` alone."""

from hypothesis import settings

settings.register_profile("default", settings.get_profile("default"), deadline=None)
