"""
What waiting costs: memory for each tunnel without requests, and for each connection of a visitor that has had an answer
and keeps the connection. Both are differences of resident memory, many of them together, divided by how many.
"""

import os
import select
import socket
import ssl
import sys
import time

import proc
from programs import ROOT, fail, until
from ways import OURS, TWO, kavilo, service, two_nginx

PEERS = os.path.join(ROOT, "bench", "peers.py")
PORTS = 8000  # visitors from one source address


def open_tunnels(programs, tunnel, wanted):
    """A process that holds so many tunnels, and their hosts."""
    path = programs.path(f"hosts{programs.number()}")
    programs.start([sys.executable, PEERS, str(tunnel.control), tunnel.token, str(wanted), path])

    def hosts():
        if not os.path.exists(path):
            return None
        with open(path, encoding="utf-8") as f:
            return f.read().split()

    return until(hosts, f"{wanted} tunnels", 120)


def tunnels(programs, report, wanted):
    tunnel = programs.server()
    open_tunnels(programs, tunnel, 10)  # whatever is made once is made
    before = proc.memory(tunnel.server.pid)
    meter = proc.Meter({"server": tunnel.server.pid})
    begin = time.monotonic()
    open_tunnels(programs, tunnel, wanted)
    took = time.monotonic() - begin
    made = meter.spent()["server"] / 1000 / wanted
    grown = proc.memory(tunnel.server.pid) - before
    meter = proc.Meter({"server": tunnel.server.pid})
    time.sleep(5)  # long enough for the PINGs of idle tunnels
    idle = meter.spent()["server"] / 5e9 * 100
    figures = {"server KiB/tunnel": grown / 1024 / wanted, "CPU us to open one": made, "opened/s": wanted / took,
               "CPU % of all, idle": idle}
    report.add("memory", f"{wanted} idle tunnels", {OURS: [figures]})


def ask(s, host):
    s.sendall(f"GET /body HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


def swallow(s, name):
    """One whole answer."""
    data = b""
    while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < 1024:
        more = s.recv(65536)
        if not more:
            fail(f"{name}: an idle visitor was not answered: {data[:100]!r}")
        data += more


def idle_visitors(way, wanted):
    """Bytes of memory for each visitor that waits: {process: bytes}."""
    context = None
    if way.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    held = []

    def add(number):
        for i in range(len(held), len(held) + number):
            s = socket.create_connection(("127.0.0.1", way.port), 20, (f"127.0.0.{2 + i // PORTS}", 0))
            if context:
                s = context.wrap_socket(s, server_hostname="localhost")
            ask(s, way.host)
            swallow(s, way.name)
            held.append(s)

    add(200)
    before = {label: proc.family_memory(pid) for label, pid in way.processes.items()}
    add(wanted)
    after = {label: proc.family_memory(pid) for label, pid in way.processes.items()}
    cut_off = select.poll()  # select() ends at 1,024 descriptors
    for s in held:
        cut_off.register(s, select.POLLIN)
    if cut_off.poll(0):
        fail(f"{way.name}: an idle visitor was cut off")
    for s in held:
        s.close()
    return {label: (after[label] - before[label]) / wanted for label in before}


def visitors(programs, report, wanted):
    origin, _ = service(programs)
    for tls in (False, True):
        kind = "idle TLS" if tls else "idle plain"
        runs = {}
        for maker in (two_nginx, kavilo):
            way = maker(programs, origin, tls=tls)
            bytes_each = idle_visitors(way, wanted)
            first = next(iter(bytes_each))  # the process that visitors meet
            runs[way.name] = [{"KiB/connection": bytes_each[first] / 1024}]
        report.add("memory", f"{wanted} {kind} visitors", {OURS: runs[OURS], TWO: runs[TWO]})


def measure(programs, report, options):
    room = proc.raise_file_limit(options.visitors + 1000)
    wanted_visitors = min(options.visitors, room - 1000)
    if wanted_visitors < options.visitors:
        report.note(f"only {wanted_visitors} visitors: the limit of open files here is {room}")
    tunnels(programs, report, min(options.tunnels, room - 1000))
    visitors(programs, report, wanted_visitors)
