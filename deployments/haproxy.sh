#!/bin/sh
# HAProxy as Ray Serve starts it, and with what Ray Serve has no variable for.
here=${0%/*}
for given; do
    # Where no router answers, HAProxy sends what Ray Serve puts beside its configuration for 502 to 504: a bare 500.
    answer=${given%/*}/500.http
    if [ -f "$answer" ]; then cp "$here/no_router.http" "$answer"; fi
    # Under its own name, by which Ray Serve knows its HAProxy again; it is written anew for each start.
    if [ -f "$given" ] && ! grep -q x-signalgraph "$given"; then
        sed -f "$here/backend.sed" "$given" > "$given.full" && mv "$given.full" "$given"
    fi
done
exec "$SIGNALGRAPH_HAPROXY" -f "$here/haproxy.cfg" "$@"
