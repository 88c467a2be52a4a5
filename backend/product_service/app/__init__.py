"""The application. Its own imports are relative: it is `app` from its folder and `backend.product_service.app` elsewhere."""
