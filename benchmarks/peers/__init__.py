"""The peers: the same work as their own documentation would do it, each in an environment of its own."""
