"""Implementations that run on several processes, each of which holds some of the tokens."""
