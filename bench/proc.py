"""What the kernel knows about a process and all that descend from it: processor time in nanoseconds, memory, files."""

import contextlib
import os
import resource
import time


def children():
    """{parent: [pids]} of all processes."""
    tree = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", encoding="utf-8") as f:
            tree.setdefault(int(f.read().rpartition(") ")[2].split()[1]), []).append(int(entry))
    return tree


def family(pid, tree=None):
    """A process and its descendants: nginx works in a child of the one that was started, sshd in two."""
    tree = children() if tree is None else tree
    return [pid] + [p for child in tree.get(pid, []) for p in family(child, tree)]


def cpu_ns(pid):
    """Processor time of one process so far, its threads together. /proc/PID/schedstat has only the first of them."""
    total = 0
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/schedstat", encoding="utf-8") as f:
                total += int(f.read().split()[0])
    return total


class Meter:
    """Processor time of some families since the meter was made. {label: pid} in, {label: nanoseconds} out."""

    def __init__(self, processes):
        tree = children()
        self.families = {label: family(pid, tree) for label, pid in processes.items()}
        self.start = self.now()

    def now(self):
        return {label: sum(map(cpu_ns, pids)) for label, pids in self.families.items()}

    def spent(self):
        return {label: ns - self.start[label] for label, ns in self.now().items()}


def machine_ticks():
    """(at work, idle): ticks of all processors since the machine started."""
    with open("/proc/stat", encoding="utf-8") as f:
        ticks = [int(word) for word in f.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return sum(ticks) - idle, idle


def busy(seconds=0.5):
    """The part of the machine's processor time that is being used, 0 to 1."""
    work, idle = machine_ticks()
    time.sleep(seconds)
    more_work, more_idle = machine_ticks()
    return (more_work - work) / max(more_work - work + more_idle - idle, 1)


def memory(pid, field="VmRSS"):
    """Bytes of a process, VmRSS or VmHWM (the most it has had)."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as f:
        for line in f:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    return 0


def family_memory(pid, field="VmRSS"):
    return sum(memory(p, field) for p in family(pid))


def forget_peak(pid):
    """VmHWM begins again at what is there now."""
    for p in family(pid):
        with contextlib.suppress(OSError), open(f"/proc/{p}/clear_refs", "w", encoding="utf-8") as f:
            f.write("5")


def raise_file_limit(wanted):
    """As many open files as wanted, for this process and those it starts from now on; how many it is in the end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), max(hard, wanted)))
        return max(soft, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
