"""Commands that each have a module: what they need is imported when they run."""
