"""What all tests share: how drawn examples are tried."""

from hypothesis import HealthCheck, settings

# a busy machine or the first compilation makes any example slow, which says nothing about what is tested
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
