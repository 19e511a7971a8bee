"""C++ and CUDA kernels: the entropy coder and the entropy-parameter step."""
