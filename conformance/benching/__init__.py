"""``attest bench``: time, memory and accuracy of implementations, side by side in one run."""
