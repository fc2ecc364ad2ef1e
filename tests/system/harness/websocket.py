"""A local service that speaks WebSocket (python3-websockets, whose reading of RFC 6455 is not ours), a service that takes
any Upgrade and then waits, and a visitor's WebSocket over HTTP/2 (RFC 8441, python3-h2)."""

import asyncio
import socket
import threading

import h2.config
import h2.connection
import h2.events
import h2.settings
import websockets.exceptions
import websockets.server
from websockets.frames import Frame, Opcode

from .settings import MiB, STEP


class WebSocketService:
    """An echo service on python3-websockets, in a loop of its own. `closes` holds (code, reason) of ended sessions."""

    def __init__(self):
        self.closes = []
        self.pings = 0
        self.open = 0
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        assert ready.wait(STEP)
        self.url = f"http://127.0.0.1:{self.port}"

    def _run(self, ready):
        self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

        async def start():
            self.server = await websockets.server.serve(
                self._session, "127.0.0.1", 0, max_size=None, ping_interval=None, subprotocols=["chat"]
            )
            self.port = self.server.sockets[0].getsockname()[1]
            ready.set()

        self.loop.run_until_complete(start())
        self.loop.run_forever()

    async def _session(self, socket_):
        self.open += 1
        try:
            async for message in socket_:
                if message == "close please":
                    await socket_.close(4321, "as you wish")
                elif message == "ping me":
                    await (await socket_.ping(b"from the service"))
                    await socket_.send("pong came")
                else:
                    await socket_.send(message)
        except websockets.exceptions.ConnectionClosed:
            pass
        finally:
            self.open -= 1
            self.closes.append((socket_.close_code, socket_.close_reason))

    def close(self):
        async def stop():
            self.server.close()
            await self.server.wait_closed()
            self.loop.stop()

        asyncio.run_coroutine_threadsafe(stop(), self.loop)


class IdleService:
    """101 to everything; then every byte comes back. One thread for any number of connections."""

    def __init__(self):
        ready = threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        assert ready.wait(STEP)
        self.url = f"http://127.0.0.1:{self.port}"

    def _run(self, ready):
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024))
        self.port = self.server.sockets[0].getsockname()[1]
        ready.set()
        self.loop.run_forever()

    @staticmethod
    async def _serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo/1\r\n\r\n")
        while data := await reader.read(1024):
            writer.write(data)
        writer.close()

    def close(self):
        async def stop():
            self.server.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            self.loop.call_soon(self.loop.stop)

        asyncio.run_coroutine_threadsafe(stop(), self.loop)


class H2Socket:
    """A WebSocket on a stream of its own HTTP/2 connection, by extended CONNECT."""

    def __init__(self, address, host, tls=None, target="/ws"):
        sock = socket.create_connection(address, timeout=STEP)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = tls.wrap_socket(sock, server_hostname=host) if tls else sock
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 4 * MiB})
        self.h2.increment_flow_control_window(16 * MiB)
        self.fields, self.data, self.ended = None, bytearray(), False
        self._pump(lambda: self.h2.remote_settings.get(h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL) == 1)
        self.stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(self.stream, [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"),
                                           (":authority", host), (":path", target), ("sec-websocket-version", "13")])
        self._pump(lambda: self.fields)
        self.status = int(dict(self.fields)[":status"])

    def _pump(self, until):
        self._flush()
        while not until():
            assert not self.ended, "the stream has ended"
            self._take(self.sock.recv(256 * 1024))

    def _take(self, data):
        assert data, "the connection was closed"
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.fields = event.headers
            elif isinstance(event, h2.events.DataReceived):
                self.data += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self.ended = True
        self._flush()

    def _flush(self):
        self.sock.sendall(self.h2.data_to_send())

    def send(self, data, opcode=Opcode.BINARY, fin=True):
        rest = memoryview(Frame(opcode, data, fin).serialize(mask=True))
        while rest:
            room = min(self.h2.local_flow_control_window(self.stream), self.h2.max_outbound_frame_size)
            if room == 0:
                self._take(self.sock.recv(256 * 1024))
                continue
            self.h2.send_data(self.stream, bytes(rest[:room]))
            rest = rest[room:]
            self._flush()

    def receive(self):
        """The next frame: (opcode, data)."""
        self._pump(lambda: len(self.data) >= 2)
        length = self.data[1] & 0x7F
        head = 2 if length < 126 else 4 if length == 126 else 10
        self._pump(lambda: len(self.data) >= head)
        if head > 2:
            length = int.from_bytes(self.data[2:head], "big")
        self._pump(lambda: len(self.data) >= head + length)
        opcode, data = self.data[0] & 15, bytes(self.data[head : head + length])
        del self.data[: head + length]
        return opcode, data

    def wait_end(self):
        while not self.ended:
            self._take(self.sock.recv(256 * 1024))

    def close(self):
        self.sock.close()
