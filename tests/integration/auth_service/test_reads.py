"""Each read of the service answers the same on both sides, and follows the ramp."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from backend.shared import Phase
from tests.integration.auth_service.conftest import MakeAuth
from tests.integration.auth_service.support import expect
from tests.support.reading import compared, reads


@pytest.mark.parametrize("phase", [Phase.SHADOW, Phase.LIVE])
async def test_every_read_answers_the_same_on_both_sides(make_auth: MakeAuth, phase: Phase) -> None:
    auth = await make_auth(phase, shadow_read_sample_rate=1.0, new_read_share=1.0)
    admin = await auth.admin()
    user = await auth.register(first_name="Ada", city="Köln")
    await auth.carry()
    await compared(auth.manager)
    before = reads(auth.manager)
    tokens = await auth.log_in()
    expect(await auth.refresh(tokens["refresh_token"]), 200)
    expect(await auth.client.get("/users", headers=admin), 200)
    expect(await auth.client.get(f"/users/{user['id']}", headers=admin), 200)
    expect(await auth.client.get("/users/nobody", headers=admin), 404)
    found = await compared(auth.manager)
    assert not found.get("mismatch")
    assert not found.get("failed")
    assert found["equal"] >= 5
    after = reads(auth.manager)
    if phase is Phase.SHADOW:
        assert after["new"]["ramped"] - before.get("new", {}).get("ramped", 0) >= 2
        assert after["legacy"]["authoritative"] > before["legacy"]["authoritative"]
    else:
        assert set(after) == {"new"}


async def test_no_address_stands_in_the_log(make_auth: MakeAuth) -> None:
    """A log-in is about an address: that is no key to be named."""
    auth = await make_auth(Phase.SHADOW, shadow_read_sample_rate=1.0)
    await auth.register(email="ada@example.com")
    await auth.carry()
    await auth.new("UPDATE users SET password_hash = 'planted'")
    with capture_logs() as logs:
        await auth.log_in()
        assert (await compared(auth.manager))["mismatch"] == 1
    (line,) = [line for line in logs if line["event"] == "shadow_read_differs"]
    assert (line["operation"], line["key"], line["fields"]) == ("log_in", None, ["password_hash"])
    assert "ada@example.com" not in str(line)
    assert "planted" not in str(logs)
