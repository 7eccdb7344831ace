"""The commands that need no Ray, a module each. Heavy imports happen inside commands: `--help` answers at once."""
