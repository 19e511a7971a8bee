"""`python -m condic.benchmarks` is `condic-bench`."""

from condic.benchmarks.cli import main

if __name__ == "__main__":
    main()
