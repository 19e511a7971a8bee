"""The version of condic, its one source: the build reads it from here."""

__version__ = "0.1.0"
