"""PyTorch codecs to ONNX bundles."""
