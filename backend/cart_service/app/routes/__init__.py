"""The routes: thin."""
