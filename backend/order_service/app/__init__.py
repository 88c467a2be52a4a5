"""The application. Its own imports are relative: it is `app` from its folder and `backend.order_service.app` elsewhere."""
