"""The operator's routes over this service's entity, and its operations one by one."""

from __future__ import annotations

import subprocess
import sys

from backend.shared import Phase
from tests.integration.auth_service.support import ROOT, Auth, expect


async def test_an_operator_sees_and_probes_the_migration(auth: Auth) -> None:
    headers = await auth.admin()
    user = await auth.register()
    await auth.carry()
    status = expect(await auth.client.get("/dual-write/status", headers=headers), 200)
    assert (status["service"], status["phase"], status["entities"][0]) == ("auth", auth.phase.value, "user")
    assert "postgres:" not in str(status).replace("postgres:***", "")
    probe = expect(await auth.client.post("/dual-write/test-operation", headers=headers), 200)
    assert (probe["success"], probe["sync_validated"], probe["cleaned_up"]) == (True, True, True)
    path = f"/dual-write/validate-sync/{user['id']}"
    assert expect(await auth.client.post(path, headers=headers), 200)["verdict"] == "equal"
    assert len(await auth.legacy("SELECT 1 FROM users")) == len(await auth.new("SELECT 1 FROM users")) == 2


async def test_a_difference_is_told_without_secrets(auth: Auth) -> None:
    headers = await auth.admin()
    user = await auth.register()
    await auth.carry()
    # Behind the engine's back, on the side that nobody captures.
    if auth.phase is Phase.DUALWRITE:
        await auth.new(
            "UPDATE users SET password_hash = 'planted secret', role = 'admin' WHERE id = $1", user["id"]
        )
    else:
        await auth.legacy(
            "UPDATE users SET pwd_hash = 'planted secret', role_cd = 'A' WHERE usr_id = $1", user["id"]
        )
    path = f"/dual-write/validate-sync/{user['id']}?show_values=true"
    found = await auth.client.post(path, headers=headers)
    assert expect(found, 200)["verdict"] == "different"
    assert "planted secret" not in found.text
    assert "$argon2id$" not in found.text


async def test_every_operation_is_exercised_and_leaves_nothing(auth: Auth) -> None:
    done = []
    async for step in auth.manager.exercise():
        assert step.result.success, step.result.to_dict()
        done.append(step.name)
    assert {"create_user", "update_user", "deactivate_user", "change_password", "set_role"} < set(done)
    await auth.carry()
    assert await auth.legacy("SELECT 1 FROM users") == await auth.new("SELECT 1 FROM users") == []


def test_the_package_may_also_be_imported_as_app() -> None:
    code = (
        "from app.core.dual_write_manager import AuthDualWriteManager\n"
        "from app.core.dual_write_config import DualWriteSettings\n"
        "from app.main import create_app\n"
        "print(AuthDualWriteManager.service, DualWriteSettings.__name__, create_app.__module__)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "backend/auth_service",
        capture_output=True,
        text=True,
        check=True,
        timeout=40,
    )
    assert said.stdout.split() == ["auth", "DualWriteSettings", "app.main"]
