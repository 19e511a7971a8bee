"""Images on an NVIDIA GPU: a bundle's step lists executed on device tensors, between uint8 pixels and a file's bytes.

`driver` says what is needed of CUDA, `pycuda_driver` gets it from pycuda and the driver library; nothing else knows
either. `build` turns a step list into a `program`, operations on named tensors; `arena` lays those out in one
allocation, `schedule` spreads them over streams, `workspace` runs them there, `pipeline` codes images with them, and
`sections` are what comes out. `arguments` are a kernel's, as the driver takes them.
`graph` is what a backend loads for a device, `tiling` finds tiles for images that its graphs do not take.
"""
