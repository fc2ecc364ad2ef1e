"""A local service that speaks WebSocket: python3-websockets, whose reading of RFC 6455 is not ours."""

import asyncio
import threading

import websockets.exceptions
import websockets.server

from .settings import STEP


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
