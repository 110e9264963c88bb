"""One module a container engine: how its configuration learns of our runtime."""
