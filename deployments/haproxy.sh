#!/bin/sh
# HAProxy as Ray Serve starts it, and with what Ray Serve has no variable for.
exec "$SIGNALGRAPH_HAPROXY" -f "${0%/*}/haproxy.cfg" "$@"
