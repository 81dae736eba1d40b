"""The language of a prompt: its text, its motion words, and their tokens."""
