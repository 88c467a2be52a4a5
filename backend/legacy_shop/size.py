"""How much a generated shop holds."""

from __future__ import annotations

from dataclasses import dataclass, fields

from backend.legacy_shop.errors import LoadError


@dataclass(frozen=True, kw_only=True)
class ShopSize:
    """Rows per table. Raises `LoadError` when no shop can have that shape."""

    products: int = 1_000
    categories: int = 60
    users: int = 2_000
    carts: int = 5_000
    lines: int = 20_000
    wishes: int = 2_000

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise LoadError(f"a shop cannot have {getattr(self, field.name)} {field.name}")
        if self.lines and not (self.carts and self.products):
            raise LoadError(f"{self.lines} lines need at least one cart and one product")
        if self.wishes > self.users * self.products:
            raise LoadError(f"{self.users} users cannot wish for {self.wishes} of {self.products} products")

    @classmethod
    def of_lines(cls, lines: int) -> ShopSize:
        """A shop with `lines` cart lines, and the rest in the proportions of the default one."""
        default = cls()

        def share(rows: int) -> int:
            return max(1, rows * lines // default.lines)

        return cls(
            products=share(default.products),
            categories=share(default.categories),
            users=share(default.users),
            carts=share(default.carts),
            lines=lines,
            wishes=share(default.wishes),
        )
