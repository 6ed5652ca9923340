"""Settings of hypothesis: the same examples in every run, and no limit to the time of one."""

from hypothesis import settings

settings.register_profile("afflow", derandomize=True, deadline=None)
settings.load_profile("afflow")
