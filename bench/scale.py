"""
Does a request cost the same however much there is beside it? Processor time a request with 1 to 5,000 tunnels open, and
with 1 to 1,000 requests under way on one tunnel. What is looked at is whether the figures rise along a row.
"""

import proc
from load import CPU, P99, REQUESTS, wrk
from memory import open_tunnels
from parts import take_turns
from programs import fail
from ways import OURS, Way, kavilo, service, two_nginx

# wrk calls this for each request: the tunnels take turns.
SPREAD = """
local hosts, turn = {}, 0
for host in io.lines("%s") do hosts[#hosts + 1] = host end
request = function()
    turn = turn %% #hosts + 1
    return wrk.format("GET", nil, {["Host"] = hosts[turn]})
end
"""


def tunnels(programs, report, options):
    """Requests through one busy tunnel beside many idle ones, and requests that take turns on all of them. The tunnels
    are held by a script (peers.py), which answers slowly and costs the server nothing."""
    origin, _ = service(programs)
    tunnel = programs.server("--max-concurrent=2000")
    programs.client(tunnel, f"http://127.0.0.1:{origin}")
    busy = Way(OURS, tunnel.edge, tunnel.host, {"server": tunnel.server.pid})
    hosts = []
    for wanted in [n for n in (1, 10, 100, 1000, 5000) if n <= options.tunnels]:
        if wanted > len(hosts):
            hosts += open_tunnels(programs, tunnel, wanted - len(hosts))
        lines, script = programs.path("all-hosts"), programs.path("spread.lua")
        with open(lines, "w", encoding="utf-8") as f:
            f.write("\n".join(hosts) + "\n")
        with open(script, "w", encoding="utf-8") as f:
            f.write(SPREAD % lines)
        name = f"{wanted} tunnel" + ("s" if wanted > 1 else "")
        one = [wrk(busy, 64, options.seconds) for _ in range(options.repeats)]
        report.add("scaling: tunnels", f"one of {name} busy", {OURS: one}, [CPU, REQUESTS])
        many = [wrk(busy, 64, options.seconds, script=script) for _ in range(options.repeats)]
        report.add("scaling: tunnels", f"{name} in turn", {OURS: many}, [CPU, REQUESTS])


def exchanges(programs, report, options):
    """Beside two nginx, which have as many sockets to look after: what a crowd costs the kernel and its caches is not
    the tunnel's."""
    origin, _ = service(programs)
    ways = [two_nginx(programs, origin), kavilo(programs, origin)]
    report.check_quiet("scaling")
    for connections in (1, 4, 16, 64, 256, 1000):
        runs = take_turns(ways, lambda way: wrk(way, connections, options.seconds), options.repeats)
        report.add("scaling: requests at once on one tunnel", f"{connections} at once", runs, [CPU, REQUESTS, P99])


def measure(programs, report, options):
    room = proc.raise_file_limit(8000)
    if room < options.tunnels + 1000:
        fail(f"the limit of open files is {room}: too low for {options.tunnels} tunnels")
    tunnels(programs, report, options)
    exchanges(programs, report, options)
