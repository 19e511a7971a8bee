"""Throughput, rate-distortion and peers."""
