"""``attest claims``: published figures, each looked into on this machine."""
