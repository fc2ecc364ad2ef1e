"""
Load on one Way: each function makes one run and returns {figure: number}. Figures are named with their unit. Processor
time is that of the processes that are the way; the load and the service behind it are everybody's alike.
"""

import os
import re
import statistics
import subprocess
import time

import proc
from programs import fail

REQUESTS, P50, P99 = "requests/s", "p50 ms", "p99 ms"
CPU = "CPU us/request"


def run(argv):
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        fail(f"{' '.join(argv)}: {done.stderr or done.stdout}")
    return done.stdout


def cpu_figures(meter, count):
    """CPU microseconds for each of `count` requests: of each process and of all together."""
    spent = {label: ns / 1000 / max(count, 1) for label, ns in meter.spent().items()}
    return {CPU: sum(spent.values()), **{f"{CPU}, {label}": us for label, us in spent.items()}}


def wrk(way, connections, seconds, path="/body", script=None):
    """Requests in HTTP/1.1 on keep-alive connections, one after the other on each."""
    meter = proc.Meter(way.processes)
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "20s", "--latency"]
    argv += ["-s", script] if script else ["-H", f"Host: {way.host}"]
    out = run(argv + [way.url + path])
    if "Non-2xx" in out or "Socket errors" in out:
        fail(f"{way.name}: some requests failed:\n{out}")

    def latency(percent):
        number, unit = re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", out).groups()
        return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]

    return {REQUESTS: float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)), P50: latency(50), P99: latency(99),
            **cpu_figures(meter, int(re.search(r"(\d+) requests in", out).group(1)))}


def h2load(way, connections, streams, seconds, folder):
    """Requests in HTTP/2, so many streams at once on each connection."""
    log = os.path.join(folder, "h2load.log")
    if os.path.exists(log):
        os.unlink(log)
    meter = proc.Meter(way.processes)
    out = run(["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{seconds}", f"--log-file={log}",
               f"--connect-to=127.0.0.1:{way.port}", f"{'https' if way.tls else 'http'}://{way.host}:{way.port}/body"])
    good = int(re.search(r"(\d+) succeeded", out).group(1))
    if not re.search(r" 0 failed, 0 errored, 0 timeout\n.* 0 3xx, 0 4xx, 0 5xx\n", out):
        fail(f"{way.name}: some requests failed:\n{out}")
    spent = cpu_figures(meter, good)
    with open(log, encoding="utf-8") as f:
        times = sorted(int(line.split("\t")[2]) for line in f)
    return {REQUESTS: good / seconds, P50: times[len(times) // 2] / 1000, P99: times[len(times) * 99 // 100] / 1000,
            **spent}


def bulk(way, size, upload=None):
    """One large body down, or the file `upload` up: bytes a second, processor time a MiB, the most memory it took."""
    for pid in way.processes.values():
        proc.forget_peak(pid)
    meter = proc.Meter(way.processes)
    argv = ["curl", "-sS", "--fail", "--max-time", "120", "-o", "/dev/null", "-H", f"Host: {way.host}", "-H", "Expect:",
            "-w", "%{time_total} %{size_download} %{size_upload}"]
    argv += ["-T", upload, way.url + "/sink"] if upload else [way.url + "/bulk"]
    seconds, down, up = map(float, run(argv).split())
    if (up if upload else down) != size:
        fail(f"{way.name}: {up if upload else down} of {size} bytes arrived")
    spent = sum(meter.spent().values()) / 1000
    figures = {"MiB/s": size / 2**20 / seconds, "CPU us/MiB": spent / (size / 2**20)}
    peaks = {f"peak MiB, {label}": proc.family_memory(pid, "VmHWM") / 2**20 for label, pid in way.processes.items()}
    return {**figures, "peak MiB": sum(peaks.values()), **peaks}


def median(runs, figure):
    return statistics.median(r[figure] for r in runs if figure in r)


def settle(seconds=0.3):
    """Between two runs: what the last one left in flight has to be gone."""
    time.sleep(seconds)
