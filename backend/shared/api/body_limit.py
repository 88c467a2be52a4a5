"""No request body is read beyond a limit."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.shared.api.problems import problem_response

MAX_BODY_BYTES = 1_048_576


class BodyLimitMiddleware:
    """Answers 413 to bodies that announce themselves as too large, before any of it is read, and stops reading those
    that do not announce it.

    FastAPI's own `max_body_size` answers the first kind in plain text, past the problem handlers.
    """

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "")
        if announced.isascii() and announced.isdigit() and self._is_beyond(announced):
            response = problem_response(status=413, detail=self._detail(), path=scope["path"])
            await response(scope, receive, send)
            return
        received = 0

        async def counting_receive() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self.max_bytes:
                    raise HTTPException(status_code=413, detail=self._detail())
            return message

        await self.app(scope, counting_receive, send)

    def _is_beyond(self, announced: str) -> bool:
        # A number of thousands of digits is not turned into an int.
        return len(announced) > 18 or int(announced) > self.max_bytes

    def _detail(self) -> str:
        return f"a body may hold {self.max_bytes} bytes at most"
