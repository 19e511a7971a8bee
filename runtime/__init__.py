"""Bundle to bitstream to image."""
