"""The rooms of the auth service. Its own imports are relative: the package may also be imported as `app`."""
