"""Settings of the whole suite: the same run every time, on a machine of any speed."""

import os

from hypothesis import HealthCheck, settings

settings.register_profile("ci", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
os.environ["ATTEST_DATABASE"] = "none"  # no run may depend on the one before
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
