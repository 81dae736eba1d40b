"""The two commands, ./scripts/demo and ./scripts/test, and all that they need."""
