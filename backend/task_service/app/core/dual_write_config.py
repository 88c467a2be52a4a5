"""Where the settings of the dual write come from; the names of the brief."""

from backend.shared import DualWriteSettings

__all__ = ["DualWriteSettings"]
