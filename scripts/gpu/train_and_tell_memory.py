"""``fairseq-train`` with the arguments given, then the most memory that the device held at once."""

import resource

import torch
from fairseq_cli.train import cli_main


def main() -> None:
    """Train and tell."""
    cli_main()
    if torch.cuda.is_available():
        print(f"peak memory on the device: {torch.cuda.max_memory_allocated() / 2**20:,.0f} MiB")
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:,.0f} MiB")


if __name__ == "__main__":
    main()
