"""What the service keeps of others' things, as it has heard of them."""

from __future__ import annotations

from backend.messages.users import UserChanged
from backend.shared.events.read_models import ReadModel

from .legacy import USER_VIEW
from .models import user_view

USERS = ReadModel(
    name="users",
    service="cart",
    owner="auth",
    kind=UserChanged,
    table=user_view,
    entity=USER_VIEW.name,
)
READ_MODELS = (USERS,)
