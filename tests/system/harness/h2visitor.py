"""A visitor on HTTP/2 (prior knowledge), on python3-h2: several streams on one connection, each body hashed."""

import hashlib
import socket

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from .http1 import Broken
from .settings import STEP


def fetch(address, host, targets, timeout=STEP, fields=()):
    """GETs of all targets at once, with these fields too; for each (status, fields, SHA-256, complete). Broken when the connection ends first."""
    with socket.create_connection(address, timeout=timeout) as sock:
        conn = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        conn.initiate_connection()
        streams = {}
        for target in targets:
            number = conn.get_next_available_stream_id()
            conn.send_headers(number, [(":method", "GET"), (":scheme", "http"), (":path", target), (":authority", host), *fields],
                              True)
            streams[number] = [0, {}, hashlib.sha256(), None]
        try:
            _converse(sock, conn, streams)
        except (OSError, h2.exceptions.ProtocolError) as error:
            raise Broken(f"{type(error).__name__}: {error}") from error
    return [(status, fields, sha.hexdigest(), complete) for status, fields, sha, complete in streams.values()]


def _converse(sock, conn, streams):
    while any(stream[3] is None for stream in streams.values()):
        sock.sendall(conn.data_to_send())
        data = sock.recv(65536)
        if not data:
            raise Broken("closed")
        for event in conn.receive_data(data):
            if isinstance(event, h2.events.ConnectionTerminated) and event.error_code:
                raise Broken(f"GOAWAY {event.error_code}")
            stream = streams.get(getattr(event, "stream_id", None))
            if not stream:
                continue
            if isinstance(event, h2.events.ResponseReceived):
                stream[1] = dict(event.headers)
                stream[0] = int(stream[1][":status"])
            elif isinstance(event, h2.events.DataReceived):
                stream[2].update(event.data)
                conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                stream[3] = True
            elif isinstance(event, h2.events.StreamReset):
                stream[3] = False
