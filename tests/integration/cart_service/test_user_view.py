"""What the auth service has told of users counts, as far as it is later than the token at hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from backend.cart_service.app.read_models import USERS
from backend.messages.users import UserChanged
from tests.integration.cart_service.support import MUG, Api, assert_problem, token

LATER, EARLIER = timedelta(seconds=5), timedelta(minutes=5)
A_MUG = {"product_id": MUG, "quantity": 1}


async def heard(
    api: Api, user_id: str, *, is_active: bool = True, name: str = "Ann Told", ago: timedelta = -LATER
) -> None:
    """The service has heard of a user, what was told of her so long ago."""
    at = datetime.now(UTC) - ago
    message = UserChanged(user_id=user_id, display_name=name, role="user", is_active=is_active)
    position = (1, int(at.timestamp() * 1_000_000))
    assert await api.shop.manager.run_unit("hear", lambda work: USERS.keep(work, message, position))
    api.app.state.services.customers._memory.clear()


async def test_a_user_who_was_deactivated_after_her_token_was_issued_buys_nothing_more(api: Api) -> None:
    await api.add()
    await heard(api, "ann", is_active=False)
    for _ in range(2):  # out of the database, then out of this process's memory
        assert_problem(await api.ann.post("/carts/current/items", json=A_MUG), 403)
    # Where the order service learns what is to be ordered.
    assert_problem(await api.ann.get("/carts/current"), 403)
    assert (await api.bob.post("/carts/current/items", json=A_MUG)).status_code == 201


async def test_a_token_that_was_issued_after_what_was_told_is_the_later_word(api: Api) -> None:
    await heard(api, "ann", is_active=False, ago=EARLIER)
    assert (await api.ann.post("/carts/current/items", json=A_MUG)).status_code == 201


async def test_what_is_told_lets_a_user_in_again(api: Api) -> None:
    await api.anyone.post("/carts", headers=token(api.issuer, "ann", is_active=False))
    assert_problem(await api.ann.post("/carts"), 403)
    await heard(api, "ann")
    assert (await api.ann.post("/carts")).status_code == 201


async def test_operators_see_whose_a_cart_is(api: Api) -> None:
    cart = (await api.ann.post("/carts")).json()
    counter = await api.shop.add_cart(None, status="closed")
    eve = await api.shop.add_cart("eve", status="closed")
    nobody = await api.shop.add_cart("nobody-told", status="closed")
    await heard(api, "ann")
    await heard(api, "eve", name="Eve Told", is_active=False)
    for operator in (api.admin, api.service):
        shown = (await operator.get(f"/carts/{cart['id']}")).json()
        assert shown["customer"]["display_name"] == "Ann Told"
        shown = (await operator.get(f"/carts/{eve}")).json()
        assert (shown["customer"]["display_name"], shown["customer"]["is_active"]) == ("Eve Told", False)
        for number in (counter, nobody):
            assert (await operator.get(f"/carts/{number}")).json()["customer"] is None
        current = (await operator.get("/carts/current", params={"user_id": "ann"})).json()
        assert current["customer"]["display_name"] == "Ann Told"
    # Told before the token was issued, and after: the later word wins.
    assert (await api.ann.get(f"/carts/{cart['id']}")).json()["customer"]["display_name"] == "Ann Told"
