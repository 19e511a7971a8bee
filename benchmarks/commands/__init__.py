"""One file per command of condic-bench: its options, and how its results look on a terminal."""
