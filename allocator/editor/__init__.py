"""The specs of containers, read and edited in a process of their own."""
