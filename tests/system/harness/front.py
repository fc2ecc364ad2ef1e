"""
nginx and HAProxy in front of a server, with configurations as an operator writes them. Each gets a socket that listens
already, so that no port is guessed: nginx by its variable NGINX, HAProxy by `fd@`.
"""

import getpass
import pathlib
import re
import shutil
import socket

from .process import base_environment
from .settings import ROOT

NGINX, HAPROXY = shutil.which("nginx") or "/usr/sbin/nginx", shutil.which("haproxy") or "/usr/sbin/haproxy"
NGINX_STREAM = pathlib.Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def missing(*files):
    """Why a test has to be skipped, or None."""
    gone = [str(f) for f in files if not pathlib.Path(f).exists()]
    return f"{', '.join(gone)} is not installed" if gone else None


def documented(page, heading, language):
    """The fenced block of that language below a heading of a page in docs/."""
    text = (ROOT / "docs" / page).read_text()
    at = re.search(rf"^##+ {re.escape(heading)}$", text, re.MULTILINE)
    assert at, f"docs/{page} has no heading {heading!r}"
    block = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL).search(text, at.end())
    assert block, f"docs/{page} has no {language} below {heading!r}"
    return block[1]


def replaced(text, *pairs):
    """Every pair's first is there, and becomes its second."""
    for old, new in pairs:
        assert old in text, f"{old!r} is not in:\n{text}"
        text = text.replace(old, new)
    return text


class Front:
    """One of them, listening on `address`. `config` is made by a function of (host:port, file descriptor)."""

    def __init__(self, programs, name, folder, config, version=4):
        family, any_address = (socket.AF_INET, "127.0.0.1") if version == 4 else (socket.AF_INET6, "::1")
        folder.mkdir(parents=True, exist_ok=True)
        with socket.socket(family) as listener:
            listener.bind((any_address, 0))
            listener.listen(100)
            self.address = listener.getsockname()[:2]
            fd = listener.fileno()
            literal = self.address[0] if version == 4 else f"[{self.address[0]}]"
            text = config(f"{literal}:{self.address[1]}", fd)
            file = folder / f"{name}.conf"
            file.write_text(text)
            env = base_environment(folder)
            if name == "nginx":
                env["NGINX"] = f"{fd};"
                argv = [NGINX, "-p", folder, "-c", file, "-e", folder / "nginx.log"]
            else:
                argv = [HAPROXY, "-db", "-f", file]
            self.program = programs.start(name, argv, folder, env, pass_fds=(fd,))
        self.program.expected_to_end = True  # by SIGTERM, at the test's end, with a status of its own


def nginx(programs, folder, body, modules="", **how):
    """`body` is a function of (host:port) that gives what stands in `http { }`, or in `stream { }` with the module. (A
    process of its own, `master_process off`, would not accept on a socket that it was given.)"""
    kind = "stream" if modules else "http"
    private = "" if modules else "".join(
        f"{what}_temp_path {folder}/{what};\n" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))

    def config(address, _):
        return (f"{modules}\ndaemon off;\nuser {getpass.getuser()};\nworker_processes 1;\npid {folder}/nginx.pid;\nevents {{ }}\n"
                f"{kind} {{\naccess_log off;\n{private}{body(address)}\n}}\n")

    return Front(programs, "nginx", folder, config, **how)


def haproxy(programs, folder, body, **how):
    """`body` is a function of (what stands behind `bind`)."""
    return Front(programs, "haproxy", folder, lambda _, fd: body(f"fd@{fd}"), **how)
