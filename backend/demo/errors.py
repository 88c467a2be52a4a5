"""What can go wrong while the stack is set up or driven."""

from __future__ import annotations

from backend.shared.domain.errors import TandemError


class StepError(TandemError):
    """A step of setting the stack up, or of the demo, went wrong. What had been started is stopped again."""
