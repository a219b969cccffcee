"""Why an implementation failed: the mistake that explains it, when it happens, and the smallest case that shows it."""
