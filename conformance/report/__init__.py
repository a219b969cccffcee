"""Reports: verdicts for people to read."""
