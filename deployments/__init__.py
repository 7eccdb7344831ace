"""How Ray Serve runs the application of `serve_app`, and how its processes are started and stopped."""
