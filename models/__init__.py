"""PyTorch codecs and the blocks they share."""
