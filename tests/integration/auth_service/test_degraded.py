"""What goes on while a database is away, and what is said where nothing goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from backend.shared import Phase
from backend.shared.testing.clusters import Cluster
from tests.integration.auth_service.support import PASSWORD, Auth, expect

CREDENTIALS = {"email": "ada@example.com", "password": PASSWORD}


@asynccontextmanager
async def away(cluster: Cluster) -> AsyncIterator[None]:
    """The server is down meanwhile."""
    await asyncio.to_thread(cluster.stop, "immediate")
    try:
        yield
    finally:
        await asyncio.to_thread(cluster.start)


async def test_the_secondary_side_is_not_missed(
    auth: Auth, legacy_cluster: Cluster, services_cluster: Cluster
) -> None:
    user = await auth.register()
    headers = await auth.bearer()
    token = (await auth.log_in())["refresh_token"]
    async with away(services_cluster if auth.phase is Phase.DUALWRITE else legacy_cluster):
        for number in range(6):  # past the point where the circuit breaker opens
            tokens = await auth.log_in()
            # Refresh tokens are kept on the new side alone.
            assert (tokens["refresh_token"] is None) is (auth.phase is Phase.DUALWRITE)
            await auth.register(f"user{number}@example.com")
            body = {"city": f"City {number}"}
            expect(await auth.client.patch("/users/me", headers=headers, json=body), 200)
        expect(await auth.client.get("/readyz"), 200)
        if auth.phase is Phase.DUALWRITE:
            answer = await auth.refresh(token)
            expect(answer, 503)
            assert answer.headers["retry-after"]
        body = {"current_password": PASSWORD, "new_password": "another long one"}
        expect(await auth.client.post("/users/me/password", headers=headers, json=body), 204)
        expect(await auth.client.delete("/users/me", headers=headers), 204)
    await auth.manager.runtime.breakers[auth.phase.policy.authoritative.other].wait_closed(10)
    old, new = await auth.both(user["id"])
    assert (old["city"], old["is_active"], old["pwd_hash"]) == ("City 5", 0, new["password_hash"])
    assert (new["city"], new["is_active"]) == ("City 5", False)
    assert len(await auth.new("SELECT 1 FROM users")) == len(await auth.legacy("SELECT 1 FROM users")) == 7
    expect(await auth.refresh(token), 401)


async def test_without_the_authoritative_side_every_answer_is_a_503(
    auth: Auth, legacy_cluster: Cluster, services_cluster: Cluster
) -> None:
    headers = await auth.admin()
    async with away(legacy_cluster if auth.phase is Phase.DUALWRITE else services_cluster):
        for _ in range(4):
            for answer in (
                await auth.client.post("/auth/login", json=CREDENTIALS),
                await auth.client.post("/users", json=CREDENTIALS),
                await auth.client.get("/users", headers=headers),
                await auth.client.patch("/users/me", headers=headers, json={"city": "Leeds"}),
            ):
                expect(answer, 503)
                assert answer.headers["retry-after"]
                assert "127.0.0.1" not in answer.text
        expect(await auth.client.get("/readyz"), 503)
        expect(await auth.client.get("/healthz"), 200)
        expect(await auth.client.get("/.well-known/jwks.json"), 200)
    await auth.manager.runtime.breakers[auth.phase.policy.authoritative].wait_closed(10)
    await auth.register()
