#!/usr/bin/python3
"""A small local service for `./dev run`: one page that shows how a request arrived, and a live stream under it.

    demo.py PROOF           listens on a free loopback port, prints it, and serves until it is told to stop

PROOF is a word that the page carries, so that whoever fetches it by its public URL knows that it came from here.
"""

import html
import http.server
import sys
import time

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="proof" content="{proof}">
<title>kavilo-tunnel works</title>
<style>
  :root {{ color-scheme: light dark; --line: color-mix(in srgb, currentColor 15%, transparent) }}
  body {{ font: 16px/1.6 system-ui, sans-serif; max-width: 44rem; margin: 12vh auto; padding: 0 1.25rem }}
  h1 {{ font-size: 1.75rem; line-height: 1.2; margin-bottom: .25rem }}
  p {{ margin: .25rem 0 2rem; opacity: .8 }}
  table {{ width: 100%; border-collapse: collapse; font-size: .9rem }}
  td {{ padding: .4rem 0; border-top: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere }}
  td:first-child {{ width: 12rem; opacity: .7 }}
  code {{ font-family: ui-monospace, monospace }}
</style>
<h1>Your tunnel works</h1>
<p>This page stands on your machine, and came to you by <code>{host}</code>.<br>
   Streamed through the same tunnel: <code id="clock">waiting&hellip;</code></p>
<table>{rows}</table>
<script>
  new EventSource("/clock").onmessage = e => document.getElementById("clock").textContent = e.data;
</script>
"""


class Demo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proof = ""

    def do_GET(self):
        if self.path == "/":
            self.page()
        elif self.path == "/clock":
            self.clock()
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def page(self):
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td><code>{html.escape(value)}</code></td></tr>"
            for name, value in self.headers.items()
        )
        host = html.escape(self.headers.get("Host", "an unknown name"))
        body = PAGE.format(proof=html.escape(self.proof), host=host, rows=rows).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def clock(self):
        """Server-sent events, one a second, for as long as somebody looks."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        while self.command != "HEAD":
            self.wfile.write(f"data: {time.strftime('%H:%M:%S')}\n\n".encode())
            time.sleep(1)

    def log_message(self, format, *args):  # pylint: disable=redefined-builtin
        """The tunnel's own log tells of requests."""


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A browser that closes its stream is no error; anything else is worth its traceback."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


if __name__ == "__main__":
    Demo.proof = sys.argv[1]
    server = Server(("127.0.0.1", 0), Demo)
    print(server.server_address[1], flush=True)
    server.serve_forever()
