"""Customers: they register, log in, browse, fill and change carts, and wish for things.

Each is the only one to write to her cart, so she knows what must be in it, and looks from time to time. One whose write is
in doubt walks out, and another comes in: nobody could say any more what her cart holds.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from backend.shared.domain.phases import Side

from .ledger import UNKNOWN, Effect, Row
from .shop import Answer, Outcome
from .worker import UNAUTHENTICATED, Market, Worker

_FIRST_NAMES = ("Ada", "Grace", "Edsger", "Barbara", "Niklaus", "Radia", "Zoë", "Đặng", "O'Neil")
_CITIES = ("London", "Leeds", "Łódź", "Kraków", "São Paulo", "Bath", "")
_MAX_LINES = 12


@dataclass(kw_only=True)
class Line:
    """A line of the cart, as the last answer had it."""

    product_id: int
    quantity: int
    unit_price: str

    @classmethod
    def of(cls, item: Any) -> Line:
        return cls(product_id=item["product_id"], quantity=item["quantity"], unit_price=item["unit_price"])


class Visit:
    """What one customer knows of herself."""

    def __init__(self, *, email: str, password: str) -> None:
        self.email = email
        self.password = password
        self.user_id = ""
        self.token: str | None = None
        self.profile: dict[str, Any] = {}
        self.cart_id: int | None = None
        self.lines: dict[int, Line] = {}
        self.wishes: list[int] = []

    @property
    def user(self) -> Row:
        return _row("auth", "user", id=self.user_id)

    def item(self, item_id: int) -> Row:
        return _row("cart", "cart_item", id=item_id)

    def wish(self, product_id: int) -> Row:
        # The answer to a wish does not name its key, but there is one wish per user and product.
        return _row("cart", "wish_item", user_id=self.user_id, product_id=product_id)


def _row(service: str, entity: str, **named: int | str) -> Row:
    return Row(
        service=service,
        entity=entity,
        shape=Side.NEW,
        columns=tuple(named),
        values=tuple(named.values()),
    )


class Customer(Worker):
    """A place in the shop that is always taken by somebody."""

    source = "customers"

    def __init__(self, market: Market, *, rng: random.Random) -> None:
        super().__init__(market, rng=rng)
        self._visit: Visit | None = None
        self._actions = (
            (self._browse, 22),
            (self._add_item, 26),
            (self._change_quantity, 16),
            (self._remove_item, 5),
            (self._clear_cart, 1),
            (self._add_wish, 7),
            (self._remove_wish, 3),
            (self._move_wish, 3),
            (self._change_profile, 5),
            (self._look_into_cart, 12),
            (self._look_at_profile, 10),
            (self._log_in, 1),
            (self._leave, 1),
        )

    async def act(self) -> None:
        """One thing that a customer does; whoever has not registered or logged in does that first."""
        if self._visit is None:
            await self._register()
        elif self._visit.token is None:
            await self._log_in(self._visit)
        else:
            actions, weights = zip(*self._actions, strict=True)
            await self.rng.choices(actions, weights)[0](self._visit)

    def forget_token(self) -> None:
        if self._visit is not None:
            self._visit.token = None

    async def _register(self) -> None:
        # Not of the seeded generator: one that was in doubt must not come a second time.
        name = secrets.token_hex(6)
        visit = Visit(email=f"Demo.{name}@Example.com", password=secrets.token_urlsafe(12))
        profile = {
            "first_name": self.rng.choice(_FIRST_NAMES),
            "last_name": name,
            "city": self.rng.choice(_CITIES),
        }

        def registered(body: Any) -> Sequence[Effect]:
            visit.user_id = body["id"]
            visit.profile = dict(profile)
            fields = {"email": visit.email, "role": "user", "is_active": True, "newsletter": False, **profile}
            return [Effect(row=visit.user, fields=fields)]

        answer = await self.write(
            "register",
            "POST",
            "auth",
            "/users",
            body={"email": visit.email, "password": visit.password, **profile},
            effects=registered,
        )
        if answer.ok:
            self._visit = visit

    async def _log_in(self, visit: Visit) -> None:
        answer = await self.market.shop.call(
            "POST", "auth", "/auth/login", body={"email": visit.email, "password": visit.password}
        )
        if answer.ok:
            visit.token = answer.body["access_token"]
        elif answer.outcome is Outcome.REFUSED:
            self.market.complain(f"log-in of {visit.user} answered {answer.status}")
            self._visit = None
        else:
            await self.pause(0.2)

    async def _leave(self, _visit: Visit) -> None:
        self._visit = None

    async def _browse(self, _visit: Visit) -> None:
        choice = self.rng.random()
        if choice < 0.2:
            await self.ask("product", "/categories")
        elif choice < 0.5:
            await self.ask(
                "product", "/products", query={"q": self.rng.choice("aeiou"), "active": "true", "limit": 20}
            )
        else:
            await self.ask("product", f"/products/{self._product()}")

    def _product(self) -> int:
        return self.rng.choice(self.market.products)

    async def _add_item(self, visit: Visit) -> None:
        if len(visit.lines) >= _MAX_LINES:
            await self._remove_item(visit)
            return
        product, quantity = self._product(), self.rng.randint(1, 9)
        await self._put(
            visit,
            "add_item",
            "/carts/current/items",
            product=product,
            quantity=quantity,
            body={"product_id": product, "quantity": quantity},
        )

    async def _move_wish(self, visit: Visit) -> None:
        if visit.wishes and len(visit.lines) < _MAX_LINES:
            product = self.rng.choice(visit.wishes)
            gone = Effect(row=visit.wish(product), deleted=True)
            path = f"/wishlist/{product}/move-to-cart"
            answer = await self._put(visit, "move_wish", path, product=product, quantity=1, besides=[gone])
            if answer.ok:
                visit.wishes.remove(product)

    async def _put(
        self,
        visit: Visit,
        operation: str,
        path: str,
        *,
        product: int,
        quantity: int,
        body: dict[str, int] | None = None,
        besides: Sequence[Effect] = (),
    ) -> Answer:
        """So many more of a product into the cart, by whichever route; what is there of it already adds up."""
        there = next(((key, line) for key, line in visit.lines.items() if line.product_id == product), None)

        def put(cart: Any) -> Sequence[Effect]:
            item = next(found for found in cart["items"] if found["product_id"] == product)
            if item["quantity"] != quantity + (there[1].quantity if there else 0):
                self.market.complain(f"{visit.item(item['id'])}: quantities do not add up")
            return [*besides, *self._cart_effects(visit, cart), self._line_effect(visit, item, cart["id"])]

        unsure = {"quantity": UNKNOWN, "unit_price": UNKNOWN}
        doubtful = [Effect(row=visit.item(there[0]), fields=unsure)] if there else []
        answer = await self.write(
            operation,
            "POST",
            "cart",
            path,
            token=visit.token,
            body=body,
            effects=put,
            doubtful=[*besides, *doubtful],
        )
        return self._settle(answer)

    def _cart_effects(self, visit: Visit, cart: Any) -> Sequence[Effect]:
        if visit.cart_id is not None:
            return []
        visit.cart_id = cart["id"]
        row = _row("cart", "cart", id=cart["id"])
        return [Effect(row=row, fields={"user_id": visit.user_id, "status": "open"})]

    @staticmethod
    def _line_effect(visit: Visit, item: Any, cart_id: int) -> Effect:
        line = visit.lines[item["id"]] = Line.of(item)
        return Effect(row=visit.item(item["id"]), fields={"cart_id": cart_id, **vars(line)})

    async def _change_quantity(self, visit: Visit) -> None:
        if not visit.lines:
            return
        item_id, quantity = self.rng.choice(list(visit.lines)), self.rng.randint(1, 99)
        effects = [Effect(row=visit.item(item_id), fields={"quantity": quantity})]
        answer = await self.write(
            "change_quantity",
            "PATCH",
            "cart",
            f"/carts/current/items/{item_id}",
            token=visit.token,
            body={"quantity": quantity},
            effects=lambda _: effects,
            doubtful=effects,
        )
        if self._settle(answer, certain=True).ok:
            visit.lines[item_id].quantity = quantity

    async def _remove_item(self, visit: Visit) -> None:
        if visit.lines:
            item_id = self.rng.choice(list(visit.lines))
            if await self._delete(
                visit, "remove_item", f"/carts/current/items/{item_id}", [visit.item(item_id)]
            ):
                del visit.lines[item_id]

    async def _clear_cart(self, visit: Visit) -> None:
        if visit.lines:
            rows = [visit.item(item_id) for item_id in visit.lines]
            if await self._delete(visit, "clear_cart", "/carts/current/items", rows):
                visit.lines.clear()

    async def _remove_wish(self, visit: Visit) -> None:
        if visit.wishes:
            product = self.rng.choice(visit.wishes)
            if await self._delete(visit, "remove_wish", f"/wishlist/{product}", [visit.wish(product)]):
                visit.wishes.remove(product)

    async def _delete(self, visit: Visit, operation: str, path: str, rows: Sequence[Row]) -> bool:
        effects = [Effect(row=row, deleted=True) for row in rows]
        answer = await self.write(
            operation,
            "DELETE",
            "cart",
            path,
            token=visit.token,
            effects=lambda _: effects,
            doubtful=effects,
        )
        return self._settle(answer, certain=True).ok

    async def _add_wish(self, visit: Visit) -> None:
        product = self._product()
        row = visit.wish(product)
        effects = [Effect(row=row, fields=dict(zip(row.columns, row.values, strict=True)))]
        answer = await self.write(
            "add_wish",
            "POST",
            "cart",
            "/wishlist",
            token=visit.token,
            body={"product_id": product},
            effects=lambda _: effects,
            doubtful=effects,
        )
        if self._settle(answer).ok and product not in visit.wishes:
            visit.wishes.append(product)

    async def _change_profile(self, visit: Visit) -> None:
        change = self.rng.choice(
            (
                {"city": self.rng.choice(_CITIES)},
                {"phone": f"+44 20 {self.rng.randrange(10**8):08d}"},
                {"newsletter": self.rng.random() < 0.5},
                {"address_line": None},
            )
        )
        effects = [Effect(row=visit.user, fields=change)]
        answer = await self.write(
            "change_profile",
            "PATCH",
            "auth",
            "/users/me",
            token=visit.token,
            body=change,
            effects=lambda _: effects,
            doubtful=effects,
        )
        if self._settle(answer, certain=True).ok:
            visit.profile |= change

    async def _look_at_profile(self, visit: Visit) -> None:
        """What was acknowledged is there at once; here as well."""
        shown = await self.ask("auth", "/users/me", token=visit.token)
        if shown is not None:
            self.market.checked_reads += 1
            if any(shown[name] != value for name, value in visit.profile.items()):
                self.market.complain(f"the profile of {visit.user} does not show what was acknowledged")

    async def _look_into_cart(self, visit: Visit) -> None:
        """What was acknowledged is on the authoritative side at once."""
        if visit.cart_id is None:
            return
        cart = await self.ask("cart", "/carts/current", token=visit.token)
        if cart is None:
            return
        self.market.checked_reads += 1
        shown = {item["id"]: _comparable(Line.of(item)) for item in cart["items"]}
        if shown != {item_id: _comparable(line) for item_id, line in visit.lines.items()}:
            self.market.complain(f"cart {visit.cart_id} does not show what was acknowledged")

    def _settle(self, answer: Answer, *, certain: bool = False) -> Answer:
        """Whose write is in doubt walks out. `certain`: what was sent could be refused by nobody."""
        if answer.outcome is Outcome.IN_DOUBT:
            self._visit = None
        elif certain and answer.outcome is Outcome.REFUSED and answer.status != UNAUTHENTICATED:
            self.market.complain(f"a write that must be possible was answered {answer.status}")
            self._visit = None
        return answer


def _comparable(line: Line) -> tuple[int, int, Decimal]:
    return line.product_id, line.quantity, Decimal(line.unit_price)
