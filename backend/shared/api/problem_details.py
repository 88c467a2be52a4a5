"""What a problem says (RFC 9457)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from backend.shared.domain.outages import Outage


class ValidationIssue(BaseModel):
    """One thing that is wrong with a request."""

    model_config = ConfigDict(frozen=True)

    location: list[str | int] = Field(
        description="Where: body, path, query or header, then the names on the way."
    )
    message: str
    type: str


class ComponentProblem(BaseModel):
    """A part that does not work."""

    model_config = ConfigDict(frozen=True)

    name: str
    required: bool


class Problem(BaseModel):
    """Problem details as in RFC 9457."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="What kind of problem this is, as a URI; stable.")
    title: str = Field(description="The kind in words.")
    status: int = Field(ge=400, le=599)
    detail: str = Field(description="What went wrong this time.")
    instance: str = Field(description="The path that was asked for.")
    request_id: str | None = Field(
        default=None, description="Also in the X-Request-ID header and in the logs."
    )
    errors: list[ValidationIssue] | None = Field(
        default=None, description="All that is wrong with a request."
    )
    outage: Outage | None = Field(default=None, description="What kept a database from answering.")
    components: list[ComponentProblem] | None = Field(default=None, description="The parts that do not work.")
