"""
The ways from a visitor to a service that are compared. Each is a Way: where visitors connect, which host they ask for,
and which processes do the work. Those that are started together stay up, so that measurements can take turns.

Fair means here: one thread a hop. Each nginx has one worker, and our server has one (--workers 1), since the client has
one by nature; sshd and ssh are what they are. Nobody writes an access log. nginx keeps as many connections alive
between hops as there are visitors, as does our client to the service.
"""

import getpass
import os
import shutil
import subprocess

from programs import Programs, answers, fail, free_port, until

TWO = "two nginx"  # what everything is compared with
OURS = "kavilo"

NGINX = """
worker_processes 1; worker_rlimit_nofile 30000; daemon off; pid {folder}/{name}.pid; error_log {folder}/{name}.log crit;
events {{ worker_connections 25000; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600; client_max_body_size 0; types {{ }}
  client_body_temp_path {folder}/{name}.1; proxy_temp_path {folder}/{name}.2; fastcgi_temp_path {folder}/{name}.3;
  uwsgi_temp_path {folder}/{name}.4; scgi_temp_path {folder}/{name}.5;
  ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; ssl_protocols TLSv1.3;
  {upstream}
  server {{ {listen} location / {{ {location} }} }}
}}
"""
# The service costs all ways the same; the less it costs, the more of what is measured is theirs. So files stay open.
SERVE = "root {folder}; open_file_cache max=16 inactive=1h; open_file_cache_valid 1h;"
UPSTREAM = "upstream next {{ server 127.0.0.1:{port}; keepalive 512; keepalive_requests 100000000; }}"
# Bodies are passed on as they come, which is what a tunnel does; nginx by itself would collect uploads in a file.
PASS = """proxy_pass {scheme}://next; proxy_http_version 1.1; proxy_set_header Host $host; proxy_buffering on;
  proxy_max_temp_file_size 0; proxy_request_buffering off; proxy_ssl_protocols TLSv1.3; proxy_set_header {connection};"""
KEEP_ALIVE = 'Connection ""'
UPGRADE = "Upgrade $http_upgrade; proxy_set_header Connection upgrade"

SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/ssh_host
PidFile none
AuthorizedKeysFile {folder}/ssh_user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
LogLevel ERROR
"""


class Way:
    """name; port and host for visitors; processes: {label: pid}, the work of their children counted with it; tls and h2
    say what visitors may speak there."""

    def __init__(self, name, port, host, processes, tls=False):
        self.name, self.port, self.host, self.processes, self.tls = name, port, host, processes, tls

    @property
    def url(self):
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"


def certificate(programs):
    """A key and a certificate for localhost and all names under it, which is its own authority."""
    paths = programs.path("cert.pem"), programs.path("key.pem")
    if not os.path.exists(paths[0]):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                        "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,DNS:*.localhost", "-out",
                        paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


# ---- nginx ----

def nginx(programs, name, next_port=None, tls=False, next_tls=False, h2=False, connection=KEEP_ALIVE):
    """One nginx with one worker: a proxy in front of next_port, or the service itself. (port, pid)"""
    certificate(programs)
    port = free_port()
    name = f"{name.replace(' ', '-')}-{programs.number()}"
    upstream, location = "", SERVE.format(folder=programs.path("www"))
    if next_port:
        upstream = UPSTREAM.format(port=next_port)
        location = PASS.format(scheme="https" if next_tls else "http", connection=connection)
    listen = f"listen 127.0.0.1:{port} backlog=4096{' ssl' if tls else ''}{' http2' if h2 else ''};"
    path = programs.path(name + ".conf")
    with open(path, "w", encoding="utf-8") as f:
        f.write(NGINX.format(folder=programs.folder, name=name, listen=listen, upstream=upstream, location=location))
    process = programs.start(["nginx", "-c", path, "-e", programs.path(name + ".log")])
    until(lambda: answers(port), name)
    return port, process.pid


def one_nginx(programs, origin, **how):
    port, pid = nginx(programs, "one hop", origin, **how)
    return Way("one nginx", port, "localhost", {"nginx": pid})


def two_nginx(programs, origin, tls=False, h2=False, connection=KEEP_ALIVE):
    """With tls: from the visitor to the first, and from the first to the second."""
    second, second_pid = nginx(programs, "second hop", origin, tls=tls, connection=connection)
    first, first_pid = nginx(programs, "first hop", second, tls=tls, next_tls=tls, h2=h2, connection=connection)
    return Way(TWO, first, "localhost", {"first nginx": first_pid, "second nginx": second_pid}, tls)


# ---- ours ----

def kavilo(programs, origin, tls=False):
    """With tls: from the visitor to the server, and on the link."""
    pair = certificate(programs) if tls else None
    tunnel = programs.server("--max-concurrent=2000", "--response-timeout=600s", tls=pair)
    programs.client(tunnel, f"http://127.0.0.1:{origin}", ca=pair and pair[0])
    return Way(OURS, tunnel.edge, tunnel.host, tunnel.pids, tls)


# ---- others ----

def ssh(programs, origin):
    """OpenSSH with -R: a throw-away sshd and keys, as the user who runs this. A Way, or a sentence why not."""
    sshd = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if not sshd or not shutil.which("ssh"):
        return "ssh -R: OpenSSH's server or client is not installed"
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # where it locks itself in; Debian's unit makes it
    port, visitors = free_port(), free_port()
    for key in ("ssh_host", "ssh_user"):
        if not os.path.exists(programs.path(key)):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", programs.path(key)], check=True)
    config = programs.path(f"sshd-{port}.conf")
    with open(config, "w", encoding="utf-8") as f:
        f.write(SSHD.format(port=port, folder=programs.folder))
    server = programs.start([sshd, "-D", "-e", "-f", config])
    until(lambda: answers(port), "sshd")
    client = programs.start(["ssh", "-N", "-p", str(port), "-i", programs.path("ssh_user"), "-F", "none",
                             "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
                             "-o", "ExitOnForwardFailure=yes", "-o", "IdentitiesOnly=yes", "-o", "LogLevel=ERROR",
                             "-R", f"127.0.0.1:{visitors}:127.0.0.1:{origin}", f"{getpass.getuser()}@127.0.0.1"])
    until(lambda: answers(visitors) or client.poll() is not None, "ssh -R")
    if client.poll() is not None:
        return "ssh -R: the throw-away sshd refused its own user"
    return Way("ssh -R", visitors, "localhost", {"sshd": server.pid, "ssh": client.pid})


# ---- all of them ----

class Ways:
    """Starts the ways that are asked for; `missing` says which could not be, and why."""

    MAKERS = {"one nginx": one_nginx, TWO: two_nginx, "ssh -R": ssh, OURS: kavilo}

    def __init__(self):
        self.missing = []

    def start(self, programs: Programs, origin, names=tuple(MAKERS), **how):
        ways = []
        for name in names:
            way = self.MAKERS[name](programs, origin, **{k: v for k, v in how.items() if name == TWO or k == "tls"})
            if isinstance(way, str):
                if way not in self.missing:
                    self.missing.append(way)
            else:
                ways.append(way)
        return ways


def service(programs, body=1024, bulk=0):
    """The nginx that all ways lead to, with /body and /bulk. (port, pid)"""
    www = programs.path("www")
    if not os.path.isdir(www):
        os.mkdir(www)
        with open(os.path.join(www, "body"), "wb") as f:
            f.write(os.urandom(body))
    if bulk:
        with open(os.path.join(www, "bulk"), "wb") as f:
            f.truncate(bulk)
    return nginx(programs, "service")


def require(*names):
    for name in names:
        if not shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin"):
            fail(f"{name} is not installed")
