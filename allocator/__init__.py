"""The node daemon, gpuportiond: which GPU serves whom, and for how long."""
