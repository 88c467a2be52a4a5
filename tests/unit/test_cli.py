from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from backend.shared.cli import main as cli
from backend.shared.domain.errors import ConfigurationError


def test_what_tandem_raises_is_one_line_and_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(monkeypatch, broken=f"{__name__}:broken")

    assert _run(monkeypatch, "broken") == 2

    assert capsys.readouterr().err == "tandem: CART_DUAL_WRITE_PHASE: 'sideways' is no phase\n"


def test_a_command_that_cannot_be_loaded_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(monkeypatch, gone="backend.nowhere:gone")

    assert _run(monkeypatch, "gone") == 2

    assert capsys.readouterr().err == (
        "tandem: the command 'gone' is not available here: No module named 'backend.nowhere'\n"
    )


def test_help_lists_all_commands_though_one_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _install(monkeypatch, gone="backend.nowhere:gone", broken=f"{__name__}:broken")

    assert _run(monkeypatch, "--help") == 0

    shown = capsys.readouterr().out
    assert "gone" in shown
    assert "Raises what a command may raise" in shown


def test_the_version_is_told_by_the_installed_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "backend.shared.cli.main", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("tandem ")


@pytest.mark.parametrize(
    "url", ["nats://u:s3cret[x@h", "nonsense", "redis://u:s3cret@h", "kafka://u:s3cret@h"]
)
def test_a_schema_is_of_no_broker_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str
) -> None:
    monkeypatch.setenv("BROKER_URL", url)

    assert _run(monkeypatch, "events", "schema", "order") == 2

    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert err.startswith("tandem: BROKER_URL: ")
    assert "s3cret" not in err


def broken() -> None:
    """Raises what a command may raise."""
    raise ConfigurationError("'sideways'\nis no phase", variable="CART_DUAL_WRITE_PHASE")


def _install(monkeypatch: pytest.MonkeyPatch, **commands: str) -> None:
    found = {name: EntryPoint(name, value, cli.COMMANDS_GROUP) for name, value in commands.items()}
    monkeypatch.setattr(cli, "_installed", lambda: found)


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["tandem", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code
