"""What a running stack shows. A package, so that its stack ends with the last test that needs it."""
