"""The settings of dual writes, under the name that every service has for them."""

from backend.shared import DualWriteSettings

__all__ = ["DualWriteSettings"]
