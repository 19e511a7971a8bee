"""Bundle to bitstream to image: encode and decode without PyTorch or ONNX."""
