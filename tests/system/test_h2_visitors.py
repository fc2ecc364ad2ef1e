"""HTTP/2 visitors as real programs are: uploads that are answered before they end."""

import os
import socket
import time

import h2.config
import h2.connection
import h2.events
import pytest

from harness.process import run
from harness.settings import MiB, SANITIZER, STEP

SIZE = 50 * MiB if not SANITIZER else 5 * MiB


def early(ex):
    """An answer at once; the upload is read to its end, as many services do."""
    ex.reply("no!", 401)
    for _ in ex.body:
        pass


@pytest.fixture
def upload(tmp_path):
    path = tmp_path / "upload"
    with open(path, "wb") as file:
        file.truncate(SIZE)
    return path


@pytest.mark.parametrize("with_tls", [False, True], ids=["h2c", "tls"])
@pytest.mark.parametrize("limit,status", [((), "401"), (("--max-request-body-bytes", "1M"), "413")], ids=["401", "413"])
def test_early_answer_arrives(make_server, make_origin, make_client, pair, upload, with_tls, limit, status):
    """curl has the answer every time, and no error of framing."""
    server = make_server(*limit, tls=pair if with_tls else None)
    client = make_client(server, make_origin(early, surprises=True), server.user().token)
    how = ["--http2", "--cacert", pair.ca] if with_tls else ["--http2-prior-knowledge"]
    url = f"{'https' if with_tls else 'http'}://{client.host}:{server.edge[1]}/"
    for _ in range(5):
        done = run(["curl", "-sS", *how, "--resolve", f"{client.host}:{server.edge[1]}:127.0.0.1", "-H", "Expect:",
                    "-w", "%{http_code} %{http_version}", "-o", os.devnull, "--data-binary", f"@{upload}", url],
                   dict(os.environ))
        assert (done.returncode, done.stdout) == (0, f"{status} 2"), done


def test_reset_comes_behind_the_answer(server, user, make_origin, make_client):
    """The upload is taken for a moment more; then it is told to stop, without an error, and the connection serves on."""
    client = make_client(server, make_origin(early, surprises=True), user.token)
    with socket.create_connection(server.edge, timeout=STEP) as sock:
        conn = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        conn.initiate_connection()
        head = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", client.host)]
        conn.send_headers(1, head)
        answered, reset, sent = None, None, 0
        while reset is None:
            room = min(conn.local_flow_control_window(1), conn.max_outbound_frame_size, 1000) if answered is None else 0
            if room:
                conn.send_data(1, b"x" * room)
                sent += room
            sock.sendall(conn.data_to_send())
            for event in conn.receive_data(sock.recv(65536)):
                if isinstance(event, h2.events.StreamEnded):
                    answered = time.monotonic()
                elif isinstance(event, h2.events.StreamReset):
                    reset = time.monotonic()
                    assert event.error_code == 0
        assert answered is not None and reset - answered > 1
        conn.send_headers(3, [(":method", "GET"), *head[1:]], end_stream=True)
        sock.sendall(conn.data_to_send())
        ended = False
        while not ended:
            ended = any(isinstance(e, h2.events.StreamEnded) for e in conn.receive_data(sock.recv(65536)))
