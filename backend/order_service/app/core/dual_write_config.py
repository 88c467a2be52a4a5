"""The settings of this service's dual write."""

from backend.shared import DualWriteSettings

__all__ = ["DualWriteSettings"]
