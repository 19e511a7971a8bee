"""ONNX graphs to TensorRT engines: build, fuse, inspect, cache."""
