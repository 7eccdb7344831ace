# What HAProxy does in front of routers, put into each backend that Ray Serve writes for an application.
#
# In a flood most of what a router did was to say no. So HAProxy says it, when more POSTs are under way than all routers
# take together. How many one takes it tells in some of its answers, and in a request HAProxy tells how many it has
# refused since the last (deployments/ingress.py). An application that tells nothing is never spoken for.
#
# A request for a decision may be sent to another router when the first died over it; a change of the release may have
# been made by then, and a second promotion would undo the first.
#
# It sends on what it has received to its end, and only that can it send to another router: a request of 15 kB comes in
# two parts over any network. A client has as long for it as a router gives him (`body_timeout_s`), unless he sends more
# than fits in the buffer.
#
# What does not fit in HAProxy's buffer (64 KiB) is refused by a router: a client who is still sending would not read
# the answer. The table has one row, with both numbers: whatever its threads do, HAProxy counts each.
/^backend http-/a\
    option http-buffer-request\
    timeout http-request 10s\
    http-error status 408 content-type application/json string '{"error":"the body did not arrive within 10 s; send it at once","code":"body_timeout","detail":{"fallback_action":"HOLD"},"request_id":""}'\
    stick-table type integer size 1 store gpc0,gpt0\
    http-request track-sc0 int(0)\
    http-request set-var(txn.takes) sc0_get_gpt0\
    http-request set-var(txn.room) nbsrv,mul(txn.takes)\
    http-request set-var(txn.full) bool(true) if METH_POST { var(txn.room) -m int gt 0 } { be_conn,sub(txn.room) gt 0 } { req.hdr_val(content-length) lt 60000 }\
    http-request set-var(txn.id) req.fhdr(x-request-id) if { var(txn.full) -m bool } { req.fhdr(x-request-id) -m reg ^[!-~]{1,128}$ }\
    http-request set-var(txn.id,ifnotexists) uuid if { var(txn.full) -m bool }\
    http-request sc-inc-gpc0(0) if { var(txn.full) -m bool }\
    http-request wait-for-body time 1s if { var(txn.full) -m bool }\
    http-request return status 429 hdr Retry-After 1 hdr X-Request-Id %[var(txn.id)] content-type application/json lf-string '{"error":"this router has as many requests as it takes; try again in a second","code":"router_full","detail":{"retry_after_s":1,"fallback_action":"HOLD"},"request_id":"%[var(txn.id),json]"}' if { var(txn.full) -m bool }\
    http-request set-var(txn.refused) sc0_clr_gpc0\
    http-request del-header x-signalgraph-refused\
    http-request set-header x-signalgraph-refused %[var(txn.refused)] if { var(txn.refused) -m int gt 0 }\
    http-request disable-l7-retry if { path,url_dec -m sub /v1/releases }\
    http-response sc-set-gpt0(0) res.hdr(x-signalgraph-takes),add(0) if { res.hdr(x-signalgraph-takes) -m found }\
    http-response del-header x-signalgraph-takes

# Of the routers on this node that have nothing to do, the first: one that has just answered has its code in the caches
# of a core, and gives the next answer in half the time of one that another took turns with. Whoever has a dashboard
# open has something to do. All others are for `leastconn`, as is what finds no idle router here.
/^    server [^ ]* \(127\.0\.0\.1\|\[*::1\]*\):[0-9]* check/{
    / backup/!{
        h
        s/^    server \([^ ]*\) .*/    use-server \1 if METH_POST { srv_conn(\1) eq 0 }/
        p
        g
    }
}
