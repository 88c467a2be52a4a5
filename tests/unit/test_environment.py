from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.shared.environment import load_environment, mask_url


def test_a_running_stack_is_found_from_a_folder_below(tmp_path: Path) -> None:
    _write_stack_env(
        tmp_path, "# written by tandem up\n\nCART_URL=http://127.0.0.1:8003\nKEY = a=b \nnonsense\n"
    )
    below = tmp_path / "backend" / "cart_service"
    below.mkdir(parents=True)

    found = load_environment(below, environ={})

    assert found == {"CART_URL": "http://127.0.0.1:8003", "KEY": "a=b"}


def test_what_the_process_was_given_wins(tmp_path: Path) -> None:
    _write_stack_env(tmp_path, "CART_URL=http://stack\nAUTH_URL=http://stack\n")

    found = load_environment(tmp_path, environ={"CART_URL": "http://given"})

    assert found == {"CART_URL": "http://given", "AUTH_URL": "http://stack"}


def test_without_a_stack_the_environment_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TANDEM_TEST_VARIABLE", "here")

    assert load_environment(tmp_path)["TANDEM_TEST_VARIABLE"] == "here"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://shop:s3cret@db:5432/poc", "postgresql://shop:***@db:5432/poc"),
        ("postgresql+asyncpg://shop:a/b@c?d#e@db/poc", "postgresql+asyncpg://shop:***@db/poc"),
        (
            "postgresql://db/poc?user=shop&password=s3cret&sslmode=require",
            "postgresql://db/poc?user=shop&password=***&sslmode=require",
        ),
        (
            "mongodb://shop:s3cret@a:1,b:2/poc?tlsCertificateKeyFilePassword=s3cret&w=majority",
            "mongodb://shop:***@a:1,b:2/poc?tlsCertificateKeyFilePassword=***&w=majority",
        ),
        (
            "mongodb+srv://shop:a/b@c@db/poc?authMechanismProperties=AWS_SESSION_TOKEN:s3cret",
            "mongodb+srv://shop:***@db/poc?authMechanismProperties=***",
        ),
        ("postgresql://shop@db/poc", "postgresql://shop@db/poc"),
        ("postgresql://[::1", "postgresql://[::1"),
        ("s3cret", "<a URL that cannot be read>"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_masking_never_raises() -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    assert mask_url(Broken()) == "<a URL that cannot be read>"
    assert mask_url(None) == "<a URL that cannot be read>"


@given(st.text(st.characters(codec="utf-8"), min_size=4).map(lambda text: f"»{text}«"))
def test_no_password_however_odd_is_shown(password: str) -> None:
    assert password not in mask_url(f"postgresql://shop:{password}@db/poc")


def _write_stack_env(folder: Path, text: str) -> None:
    (folder / ".tandem").mkdir()
    (folder / ".tandem" / "stack.env").write_text(text)
