"""The commands of condic-run, one a file. What is heavy is imported inside them: --help and --version stay instant."""
