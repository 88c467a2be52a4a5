"""Every line is one JSON object, from structlog and the standard library alike, and holds no secret."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from backend.shared.domain.errors import ConfigurationError
from backend.shared.observability.context import accept_request_id, current_request_id, request_context
from backend.shared.observability.logging import configure_logging

SECRET = "hunter2-Zx81"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, before = list(root.handlers), root.level, structlog.get_config()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.configure(**before)


def _lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_is_json_with_service_and_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("cart")
    with request_context(request_id="r-1"):
        structlog.stdlib.get_logger("x").info("cart_created", cart_id=7)
    (line,) = _lines(capsys)
    assert line["event"] == "cart_created"
    assert line["service"] == "cart"
    assert line["request_id"] == "r-1"
    assert line["level"] == "info"
    assert line["cart_id"] == 7
    assert line["timestamp"].endswith("Z")


def test_a_logger_that_was_used_before_goes_by_the_last_call(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.stdlib.get_logger("x")
    configure_logging("auth")
    log.info("first")
    configure_logging("cart")
    log.info("second")
    with structlog.testing.capture_logs() as caught:
        log.info("third")
    assert [line["service"] for line in _lines(capsys)] == ["auth", "cart"]
    assert [line["event"] for line in caught] == ["third"]


def test_the_standard_library_goes_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("cart")
    logging.getLogger("uvicorn.error").info("started on %s", "8003", extra={"color_message": "x"})
    logging.getLogger("sqlalchemy.pool").warning("url postgresql://u:%s@h/d", SECRET)
    lines = _lines(capsys)
    assert [line["event"] for line in lines] == ["started on 8003", "url postgresql://u:***@h/d"]
    assert {line["service"] for line in lines} == {"cart"}


def _fail() -> None:
    try:
        raise ValueError(f"password={SECRET}")  # noqa: TRY301 - a cause is what is wanted
    except ValueError as cause:
        raise RuntimeError(f"cannot reach postgresql://u:{SECRET}@h/d") from cause


def test_a_secret_never_gets_into_a_line(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    configure_logging("auth")
    log = structlog.stdlib.get_logger("x").bind(authorization=f"Bearer {SECRET}")
    log.info("user_registered", password=SECRET, body={"new_password": SECRET}, note=f"password={SECRET}")
    log.info("connected to " + f"postgresql://u:{SECRET}@h/d")  # noqa: G003 - the careless way is what is tested
    try:
        _fail()
    except RuntimeError:
        log.exception("connection_failed")
        logging.getLogger("plain").exception("connection failed")
    output = capsys.readouterr().out
    assert SECRET not in output
    assert output.count("RuntimeError: cannot reach") == 2
    assert len(output.splitlines()) == 4
    # Other programs' handlers get structlog's lines masked too.
    assert not any(SECRET in str(record.msg) for record in caplog.records if record.name == "x")


def test_set_up_twice_writes_once_at_the_last_level(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("cart", level="debug")
    configure_logging("cart", level="warning")
    log = structlog.stdlib.get_logger("y")
    log.info("not_shown")
    log.warning("shown")
    assert [line["event"] for line in _lines(capsys)] == ["shown"]


def test_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("cart", json=False)
    structlog.stdlib.get_logger("z").info("cart_created", password=SECRET)
    output = capsys.readouterr().out
    assert "cart_created" in output
    assert SECRET not in output


def test_an_unknown_level_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="LOG_LEVEL"):
        configure_logging("cart", level="loud")


@pytest.mark.parametrize("offered", [None, "", "a b", "x" * 65, "evil\nline", "-x", "é", "a\n"])
def test_a_strange_request_id_is_replaced(offered: str | None) -> None:
    assert accept_request_id(offered) != offered


def test_a_sane_request_id_is_kept() -> None:
    assert accept_request_id("01J-abc.DEF_9") == "01J-abc.DEF_9"


def test_no_request_no_id() -> None:
    assert current_request_id() is None
    with request_context(request_id=None, relay="r"):
        assert current_request_id() is None
    with request_context(request_id="r-2"):
        assert current_request_id() == "r-2"
    assert current_request_id() is None
