"""Users come and go, and the graph grows and shrinks with them: `make load-test`."""
