"""The parts that compare ways: the ways take turns, run by run, so that a machine whose speed drifts is fair to all."""

import os
import subprocess
import sys

import load
from programs import ROOT
from websocket import Echo, round_trips
from ways import OURS, TWO, UPGRADE, service

BULK_BYTES = 256 * 1024 * 1024


def take_turns(ways, measure, repeats):
    """{way: [figures of each run]}."""
    runs = {way.name: [] for way in ways}
    for _ in range(repeats):
        for way in ways:
            runs[way.name].append(measure(way))
            load.settle()
    return runs


def compare(report, part, case, ways, measure, repeats):
    report.check_quiet(f"{part}, {case}")
    report.add(part, case, take_turns(ways, measure, repeats))


def connections_of(options):
    return (1, 64, 256)[: 2 if options.quick else 3]


def http(programs, report, options, ways):
    """1 KiB answers in HTTP/1.1, in the clear, through every way."""
    origin, _ = service(programs)
    started = ways.start(programs, origin, ("one nginx", TWO, "ssh -R", OURS))
    for connections in connections_of(options):
        compare(report, "HTTP/1.1", f"{connections} connections", started,
                lambda way: load.wrk(way, connections, options.seconds), options.repeats)


def tls(programs, report, options, ways):
    """The same with TLS between the visitor and the first hop, and between the hops."""
    origin, _ = service(programs)
    started = ways.start(programs, origin, (TWO, OURS), tls=True)
    for connections in connections_of(options):
        compare(report, "TLS", f"{connections} connections", started,
                lambda way: load.wrk(way, connections, options.seconds), options.repeats)


def h2(programs, report, options, ways):
    """Visitors in HTTP/2, in the clear: one request at a time on each connection, and many on one."""
    origin, _ = service(programs)
    started = ways.start(programs, origin, (TWO, OURS), h2=True)
    for connections, streams in [(n, 1) for n in connections_of(options)] + [(1, 64)]:
        name = f"{connections} connections" if streams == 1 else f"1 connection, {streams} streams"
        compare(report, "HTTP/2", name, started,
                lambda way: load.h2load(way, connections, streams, options.seconds, programs.folder), options.repeats)


def bulk(programs, report, options, ways):
    """One large body each way."""
    origin, _ = service(programs, bulk=BULK_BYTES)
    names = ("one nginx", TWO, "ssh -R", OURS)
    compare(report, "bulk", "256 MiB down", ways.start(programs, origin, names),
            lambda way: load.bulk(way, BULK_BYTES), options.repeats)
    sink = programs.start([sys.executable, os.path.join(ROOT, "bench", "sink.py")], stdout=subprocess.PIPE, text=True)
    started = ways.start(programs, int(sink.stdout.readline()), names)
    body = programs.path("www", "bulk")
    compare(report, "bulk", "256 MiB up", started, lambda way: load.bulk(way, BULK_BYTES, body), options.repeats)


def websocket(programs, report, options, ways):
    """Small messages back and forth."""
    with Echo() as echo:
        started = ways.start(programs, echo.port, (TWO, "ssh -R", OURS), connection=UPGRADE)
        for connections in (1, 64):
            compare(report, "WebSocket", f"{connections} connections", started,
                    lambda way: round_trips(way, connections, options.seconds), options.repeats)
