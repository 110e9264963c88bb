"""Dynamic MIG: the smallest partition, made on demand and kept until its room is needed."""
