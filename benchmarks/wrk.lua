-- Sends prepared bodies in turn and prints what wrk measured as one line of JSON.
-- Arguments: path, content type, then the files that hold the bodies.
local prepared, turn = {}, 0

function init(args)
  local headers = { ["Content-Type"] = args[2] }
  for i = 3, #args do
    local file = assert(io.open(args[i], "rb"))
    prepared[#prepared + 1] = wrk.format("POST", args[1], headers, file:read("*a"))
    file:close()
  end
end

function request()
  turn = turn % #prepared + 1
  return prepared[turn]
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "duration_s": %.6f, "p50_ms": %.3f, "p95_ms": %.3f, "p99_ms": %.3f, "max_ms": %.3f, ' ..
    '"not_2xx": %d, "lost": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3, e.status, e.connect + e.read + e.write + e.timeout))
end
