"""The application. Its own imports are relative: it is `app` from its folder and `backend.task_service.app` elsewhere."""
