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


def connections_of(options):
    return (1, 64, 256)[: 2 if options.quick else 3]


def http(programs, report, options, ways):
    """1 KiB answers in HTTP/1.1, in the clear, through everything there is."""
    origin, _ = service(programs)
    started = ways.start(programs, origin)
    for connections in connections_of(options):
        fit = started
        if connections > 1 and any(way.name == "localtunnel" for way in started):
            fit = [way for way in started if way.name != "localtunnel"]
            slow = [way for way in started if way.name == "localtunnel"]
            try:
                runs = take_turns(slow, lambda way: load.wrk(way, connections, options.seconds), 1)
                report.add("HTTP/1.1", f"{connections} connections", runs)
            except SystemExit as error:
                report.note(f"localtunnel at {connections} connections: {str(error).splitlines()[0]}")
        runs = take_turns(fit, lambda way: load.wrk(way, connections, options.seconds), options.repeats)
        report.add("HTTP/1.1", f"{connections} connections", runs)


def tls(programs, report, options, ways):
    """The same with TLS between the visitor and the first hop, and between the hops."""
    origin, _ = service(programs)
    started = ways.start(programs, origin, (TWO, OURS), tls=True)
    for connections in connections_of(options):
        runs = take_turns(started, lambda way: load.wrk(way, connections, options.seconds), options.repeats)
        report.add("TLS", f"{connections} connections", runs)


def h2(programs, report, options, ways):
    """Visitors in HTTP/2, in the clear: one request at a time on each connection, and many on one."""
    origin, _ = service(programs)
    started = ways.start(programs, origin, (TWO, OURS), h2=True)
    for connections, streams in [(n, 1) for n in connections_of(options)] + [(1, 64)]:
        name = f"{connections} connections" if streams == 1 else f"1 connection, {streams} streams"
        runs = take_turns(started, lambda way: load.h2load(way, connections, streams, options.seconds, programs.folder),
                          options.repeats)
        report.add("HTTP/2", name, runs)


def bulk(programs, report, options, ways):
    """One large body each way."""
    origin, _ = service(programs, bulk=BULK_BYTES)
    names = ("one nginx", TWO, "ssh -R", OURS)
    runs = take_turns(ways.start(programs, origin, names), lambda way: load.bulk(way, BULK_BYTES), options.repeats)
    report.add("bulk", "256 MiB down", runs)
    sink = programs.start([sys.executable, os.path.join(ROOT, "bench", "sink.py")], stdout=subprocess.PIPE, text=True)
    started = ways.start(programs, int(sink.stdout.readline()), names)
    body = programs.path("www", "bulk")
    runs = take_turns(started, lambda way: load.bulk(way, BULK_BYTES, body), options.repeats)
    report.add("bulk", "256 MiB up", runs)


def websocket(programs, report, options, ways):
    """Small messages back and forth."""
    with Echo() as echo:
        started = ways.start(programs, echo.port, (TWO, "ssh -R", OURS), connection=UPGRADE)
        for connections in (1, 64):
            runs = take_turns(started, lambda way: round_trips(way, connections, options.seconds), options.repeats)
            report.add("WebSocket", f"{connections} connections", runs)
