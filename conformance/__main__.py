"""``python -m conformance`` is ``attest``."""

from conformance.cli import main

main(prog_name="attest")
