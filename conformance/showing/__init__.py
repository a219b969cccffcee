"""``attest show``: pictures of what a method means."""
