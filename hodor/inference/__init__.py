"""Inference: segment benchmarks, track objects in videos, load and exchange weights."""
