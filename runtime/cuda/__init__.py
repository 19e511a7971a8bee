"""Images on an NVIDIA GPU: a bundle's step lists executed on device tensors, between uint8 pixels and a file's bytes.

`driver` says what is needed of CUDA, `pycuda_driver` gets it from pycuda and the driver library; nothing else knows
either. `steps` turns a step list into operations on named tensors, `arena` lays those out in one allocation,
`workspace` runs them on a stream, `pipeline` codes images with them. `host_graph` runs a device graph on host arrays.
"""
