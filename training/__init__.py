"""Training of the codecs: data, losses, loop."""
