"""``attest guide``: which method to take, by context length, task, memory and quality."""
