"""The application. Its own imports are relative: from its own folder it is `app`, elsewhere `backend.cart_service.app`."""
