"""The same work on our peers and on ourselves, in one run on one machine: `make bench`."""
