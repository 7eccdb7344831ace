#!/bin/sh
# HAProxy as Ray Serve starts it, and with what Ray Serve has no variable for.
here=${0%/*}
# Where no router answers, HAProxy sends what Ray Serve puts beside its configuration for 502, 503 and 504: a bare 500.
for given; do
    answer=${given%/*}/500.http
    if [ -f "$answer" ]; then cp "$here/no_router.http" "$answer"; fi
done
exec "$SIGNALGRAPH_HAPROXY" -f "$here/haproxy.cfg" "$@"
