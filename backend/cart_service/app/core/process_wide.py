"""What a program shares that uses the services by hand, without an application round them: one manager, one catalog.

Made from the environment when they are first needed, one each per event loop, since connections belong to a loop.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from weakref import WeakKeyDictionary

from ..catalog import ProductCatalog
from ..product_client import HttpProductCatalog
from .dual_write_manager import CartDualWriteManager
from .settings import CartSettings

_managers: WeakKeyDictionary[AbstractEventLoop, CartDualWriteManager] = WeakKeyDictionary()
_catalogs: WeakKeyDictionary[AbstractEventLoop, ProductCatalog] = WeakKeyDictionary()


def shared_manager() -> CartDualWriteManager:
    """The manager of the running loop. Raises ConfigurationError when the environment does not say where to connect."""
    loop = asyncio.get_running_loop()
    if loop not in _managers:
        _managers[loop] = CartDualWriteManager()
    return _managers[loop]


def shared_catalog() -> ProductCatalog:
    """The product service at `PRODUCT_URL`. Raises ConfigurationError when that is not set."""
    loop = asyncio.get_running_loop()
    if loop not in _catalogs:
        settings = CartSettings.from_env()
        _catalogs[loop] = HttpProductCatalog(
            settings.product_url, timeout_seconds=settings.product_timeout_seconds
        )
    return _catalogs[loop]


async def close_shared() -> None:
    """Close what the running loop has been given; the next use makes it anew. May be repeated."""
    loop = asyncio.get_running_loop()
    manager, catalog = _managers.pop(loop, None), _catalogs.pop(loop, None)
    if catalog is not None:
        await catalog.aclose()
    if manager is not None:
        await manager.close()
