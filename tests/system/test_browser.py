"""A real browser through TLS and HTTP/2: a page, a WebSocket from it, and how an error page fits a phone's width."""

import json
import shutil

import pytest

from harness.process import base_environment
from harness.settings import STEP
from harness.websocket import WebSocketService

CHROMIUM = shutil.which("chromium")

# The page reports to its own service. It opens the WebSocket behind a request to the same host, so that an HTTP/2
# connection with extended CONNECT is there to be used; and it lays an error page out in a frame as wide as a phone.
PAGE = """<!doctype html><meta charset="utf-8"><title>test</title><script>
const report = value => fetch("/report", {method: "POST", body: JSON.stringify(value)});
const socket = host => new Promise((done, fail) => {
    const ws = new WebSocket("wss://" + host + "/ws"), got = [];
    ws.binaryType = "arraybuffer";
    ws.onopen = () => { ws.send("hello"); ws.send(new Uint8Array(300000)); };
    ws.onmessage = event => {
        got.push(typeof event.data === "string" ? event.data : event.data.byteLength);
        if (got.length === 2) ws.send("close please");
    };
    ws.onclose = event => done([...got, event.code, event.reason]);
    ws.onerror = () => fail(new Error("the WebSocket failed"));
});
const layout = async () => {
    const answer = await fetch("/die?after=nothing", {headers: {Accept: "text/html"}});
    const frame = document.createElement("iframe");
    frame.width = 320; frame.height = 560;
    frame.srcdoc = await answer.text();
    const loaded = new Promise(done => frame.onload = done);
    document.body.append(frame);
    await loaded;
    const root = frame.contentDocument.documentElement;
    return {status: answer.status, wide: root.scrollWidth, room: root.clientWidth,
            padding: getComputedStyle(frame.contentDocument.querySelector("main")).paddingLeft};
};
onload = async () => {
    try {
        await fetch("https://SOCKET/", {mode: "no-cors"});
        report({protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol, socket: await socket("SOCKET"),
                page: await layout()});
    } catch (error) {
        report({error: String(error)});
    }
};
</script>"""


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
def test_in_chromium(programs, make_server, make_origin, make_client, pair, tmp_path):
    server = make_server(tls=pair)
    token, service = server.user().token, WebSocketService()
    socket_host = make_client(server, service.url, token).host + ":%d" % server.edge[1]

    def handler(ex):
        if ex.path == "/report":
            ex.origin.reported = json.loads(ex.body.read())
            ex.reply("thanks")
        elif ex.path == "/die":
            ex.close()
        else:
            ex.reply(PAGE.replace("SOCKET", socket_host), fields=[("Content-Type", "text/html")])

    origin = make_origin(handler)
    origin.reported = None
    page_host = make_client(server, origin, token).host
    browser = programs.start(
        "chromium",
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}/profile",
         "--ignore-certificate-errors", "--host-resolver-rules=MAP *.test 127.0.0.1", "--remote-debugging-port=0",
         f"https://{page_host}:{server.edge[1]}/"],
        tmp_path / "chromium", base_environment(tmp_path))
    browser.wait(lambda: origin.reported, STEP * 3, "the page reports")
    browser.stop(seconds=STEP * 2)
    service.close()
    seen = origin.reported
    assert "error" not in seen, seen
    assert seen["protocol"] == "h2"
    assert seen["socket"] == ["hello", 300000, 4321, "as you wish"]
    page = seen["page"]
    assert page["status"] == 502 and page["padding"] == "24px", "the style is not applied"
    assert page["wide"] <= page["room"], "the error page is wider than a phone"
