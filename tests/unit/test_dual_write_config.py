"""Every line of the settings table, and what contradicts itself."""

from __future__ import annotations

import pytest

from backend.shared import ConfigurationError, DualWriteSettings, Phase, Side, ValidationError

URLS = {"LEGACY_DATABASE_URL": "postgresql://u:hunter2@h/l", "DATABASE_URL": "postgresql://u:hunter2@h/n"}


def from_env(**variables: str) -> DualWriteSettings:
    return DualWriteSettings.from_env("CART", URLS | variables)


def test_defaults_are_those_of_the_table() -> None:
    shown = from_env().to_dict()
    assert shown == {
        "enabled": True,
        "to_legacy": True,
        "to_new": True,
        "phase": "rampdown",
        "fail_on_new_error": True,
        "fail_on_legacy_error": False,
        "async_legacy": True,
        "timeout": 5.0,
        "ping": "breaker",
        "availability": "authoritative",
        "validate_sync": True,
        "sync_interval": 300.0,
        "full_sync_interval": 86_400.0,
        "batch_size": 100,
        "retry_attempts": 3,
        "retry_delay": 5.0,
        "log_all": False,
        "log_errors_only": True,
        "metrics_enabled": True,
        "foreign_writes": "report",
        "max_lag": 5.0,
        "lag_window": 60.0,
        "validation_max_age": 3600.0,
        "min_shadow_reads": 1000,
        "max_mismatch_rate": 0.001,
        "dual_read_fallback": "off",
        "shadow_read_sample_rate": 0.1,
        "new_read_share": 0.0,
        "legacy_database_url": "postgresql://u:***@h/l",
        "database_url": "postgresql://u:***@h/n",
    }


@pytest.mark.parametrize(
    ("variables", "phase"),
    [
        ({}, Phase.RAMPDOWN),
        ({"DUAL_WRITE_TO_LEGACY": "false"}, Phase.COMPLETE),
        ({"CART_DUAL_WRITE_TO_NEW": "0"}, Phase.OFF),
        ({"DUAL_WRITE_PHASE": "shadow"}, Phase.SHADOW),
        ({"DUAL_WRITE_PHASE": "shadow", "CART_DUAL_WRITE_PHASE": "Live"}, Phase.LIVE),
    ],
)
def test_first_phase_follows_the_flags_unless_named(variables: dict[str, str], phase: Phase) -> None:
    assert from_env(**variables).phase is phase


def test_service_wins_over_common_and_urls_too() -> None:
    settings = from_env(
        DUAL_WRITE_BATCH_SIZE="7",
        CART_DUAL_WRITE_BATCH_SIZE="8",
        PRODUCT_DUAL_WRITE_BATCH_SIZE="9",
        CART_DATABASE_URL="postgresql://own/n",
    )
    assert settings.batch_size == 8
    assert settings.database_url == "postgresql://own/n"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DUAL_WRITE_ENABLED", "maybe"),
        ("CART_DUAL_WRITE_PHASE", "halfway"),
        ("DUAL_WRITE_SYNC_INTERVAL", "-1"),
        ("DUAL_WRITE_SYNC_INTERVAL", "0"),
        ("DUAL_WRITE_SYNC_INTERVAL", "nan"),
        ("DUAL_WRITE_FULL_SYNC_INTERVAL", "0"),
        ("CART_DUAL_WRITE_FULL_SYNC_INTERVAL", "inf"),
        ("CART_DUAL_WRITE_RETRY_DELAY", "-0.1"),
        ("DUAL_WRITE_BATCH_SIZE", "0"),
        ("DUAL_WRITE_BATCH_SIZE", "1e3"),
        ("DUAL_WRITE_RETRY_ATTEMPTS", "0"),
        ("DUAL_WRITE_BATCHSIZE", "5"),
        ("CART_DUAL_WRITE_NONSENSE", "5"),
    ],
)
def test_wrong_value_names_its_variable(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        from_env(**{variable: value})
    assert variable.removeprefix("CART_") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "variables",
    [
        {"DUAL_WRITE_TO_LEGACY": "false", "DUAL_WRITE_TO_NEW": "false"},
        {"DUAL_WRITE_TO_LEGACY": "false", "DUAL_WRITE_PHASE": "dualwrite"},
        {"DUAL_WRITE_TO_NEW": "false", "DUAL_WRITE_PHASE": "dualwrite"},
        {"DUAL_WRITE_TO_LEGACY": "false", "DUAL_WRITE_PHASE": "rampdown"},
        {"DUAL_WRITE_TO_NEW": "false", "DUAL_WRITE_PHASE": "complete"},
    ],
)
def test_contradictions_are_refused(variables: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="DUAL_WRITE_TO_"):
        from_env(**variables)


def test_secrets_stay_out_of_sight() -> None:
    settings = from_env()
    assert "hunter2" not in repr(settings) + str(settings) + str(settings.to_dict())


def test_run_time_changes_are_all_or_nothing() -> None:
    settings = from_env()
    assert settings.changed({"batch_size": 5, "retry_delay": 1}).batch_size == 5
    for wrong in (
        {"phase": "live"},
        {"database_url": "x"},
        {"batch_size": 0},
        {"batch_size": True},
        {"enabled": 1},
        {"nonsense": 1},
        {"to_new": False, "to_legacy": False},
    ):
        with pytest.raises(ValidationError):
            settings.changed({"log_all": True, **wrong})
    assert settings.log_all is False


@pytest.mark.parametrize("phase", list(Phase))
def test_policy_of_each_phase(phase: Phase) -> None:
    policy = phase.policy
    expected = {
        Phase.OFF: (Side.LEGACY, None, False),
        Phase.DUALWRITE: (Side.LEGACY, Side.NEW, False),
        Phase.SHADOW: (Side.LEGACY, Side.NEW, True),
        Phase.LIVE: (Side.NEW, Side.LEGACY, True),
        Phase.RAMPDOWN: (Side.NEW, Side.LEGACY, False),
        Phase.COMPLETE: (Side.NEW, None, False),
    }
    assert (policy.authoritative, policy.secondary, policy.compares_reads) == expected[phase]
    settings = from_env()
    assert settings.carries(phase) is (policy.secondary is not None)
    assert not settings.changed({"enabled": False}).carries(phase)
