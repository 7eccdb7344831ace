# What HAProxy does in front of routers, put into each backend that Ray Serve writes for an application.
#
# In a flood most of what a router did was to say no. So HAProxy says it, when more POSTs are under way than all routers
# take together. How many one takes it tells in some of its answers, and in a request HAProxy tells how many it has
# refused (deployments/ingress.py). An application that tells nothing is never spoken for.
#
# What does not fit in HAProxy's buffer (64 KiB) is refused by a router: a client who is still sending would not read
# the answer. & is the application; names of variables have no dashes.
/^backend http-/{
p
s/^backend //
s/[^A-Za-z0-9_]/_/g
s|.*|    http-request set-var(proc.refused_&,ifnotexists) int(0)\
    http-request set-var(txn.takes) nbsrv,mul(proc.takes_&)\
    http-request set-var(txn.full) bool(true) if METH_POST { nbsrv gt 0 } { be_conn,sub(txn.takes) gt 0 } { req.hdr_val(content-length) lt 60000 }\
    http-request set-var(txn.id) req.fhdr(x-request-id) if { var(txn.full) -m bool } { req.fhdr(x-request-id) -m reg ^[!-~]{1,128}$ }\
    http-request set-var(txn.id,ifnotexists) uuid if { var(txn.full) -m bool }\
    http-request set-var(proc.refused_&) var(proc.refused_&),add(1) if { var(txn.full) -m bool }\
    http-request wait-for-body time 1s if { var(txn.full) -m bool }\
    http-request return status 429 hdr Retry-After 1 hdr X-Request-Id %[var(txn.id)] content-type application/json lf-string '{"error":"this router has as many requests as it takes; try again in a second","code":"router_full","detail":{"retry_after_s":1,"fallback_action":"HOLD"},"request_id":"%[var(txn.id),json]"}' if { var(txn.full) -m bool }\
    http-request del-header x-signalgraph-refused\
    http-request set-header x-signalgraph-refused %[var(proc.refused_&)] if { var(proc.refused_&) -m int gt 0 }\
    http-request set-var(proc.refused_&) int(0)\
    http-response set-var(proc.takes_&) res.hdr(x-signalgraph-takes),add(0) if { res.hdr(x-signalgraph-takes) -m found }\
    http-response del-header x-signalgraph-takes|
}
