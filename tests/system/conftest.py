"""Fixtures: README.md says which there are. Everything a test starts ends with it, and is looked at when it ends."""

import os
import shutil
import signal
import sys

import pytest

sys.path.insert(0, __file__.rpartition("/")[0])

from harness import disk  # noqa: E402  pylint: disable=wrong-import-position
from harness.netns import Namespaces  # noqa: E402  pylint: disable=wrong-import-position
from harness.origin import Origin  # noqa: E402  pylint: disable=wrong-import-position
from harness.process import Program  # noqa: E402  pylint: disable=wrong-import-position
from harness.settings import BIN, TEST, TUNNEL, TUNNELD  # noqa: E402  pylint: disable=wrong-import-position
from harness.tls import Authority  # noqa: E402  pylint: disable=wrong-import-position
from harness.tunnel import Client, Server  # noqa: E402  pylint: disable=wrong-import-position


def pytest_configure(config):
    config.addinivalue_line("markers", "peers: needs only the test's own peers, not the programs")
    config.addinivalue_line("markers", "first: takes long by the clock, so it does not come last")
    config.addinivalue_line("markers", "patience(seconds): an alarm later than usual")


def pytest_xdist_auto_num_workers():
    """`-n auto`: more than there are cores, because most tests wait for something most of the time."""
    return 2 * (os.cpu_count() or 1)


def pytest_collection_modifyitems(items):
    """Tests that take long by the clock are spread over the first three quarters: pytest-xdist hands out runs of
    neighbours, so next to each other they would all be one worker's, and at the end they would be waited for alone."""
    long = [item for item in items if item.get_closest_marker("first")]
    short = [item for item in items if not item.get_closest_marker("first")]
    step = max(1, len(short) * 3 // 4 // max(1, len(long)))
    for i, item in enumerate(long):
        short.insert(i * (step + 1), item)
    items[:] = short


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    """No test may hang: the alarm raises in the main thread, where it waits."""
    marker = item.get_closest_marker("patience")
    seconds = int(marker.args[0] if marker else TEST)

    def alarm(*_):
        raise AssertionError(f"the test did not end within {seconds} s")

    signal.signal(signal.SIGALRM, alarm)
    signal.alarm(seconds)
    yield
    signal.alarm(0)


class Programs:
    """Starts programs and ends them. One at a time is the collection that failing tests print."""

    current = []

    def __init__(self):
        self.all = []
        Programs.current.append(self)

    def start(self, name, argv, folder, env, **how):
        for built in (TUNNELD, TUNNEL):
            if built in argv and not built.exists():
                pytest.fail(f"{built} is not built; KAVILO_BIN is {BIN}", pytrace=False)
        program = Program(name, argv, folder, env, **how)
        self.all.append(program)
        return program

    def finish(self):
        Programs.current.remove(self)
        wrong = []
        for program in reversed(self.all):
            wrong += program.finish()
        assert not wrong, "\n".join(wrong)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """The last lines of every program's log go with a failure."""
    outcome = yield
    report = outcome.get_result()
    if not report.failed or call.when == "setup":
        return
    for programs in Programs.current:
        for program in programs.all:
            state = "running" if program.running() else f"ended with {program.process.returncode}"
            for kind, text in (("stdout", program.stdout()), ("stderr", program.stderr())):
                if text:
                    report.sections.append((f"{program.name} ({state}) {kind}", text[-8000:]))


@pytest.fixture
def programs():
    made = Programs()
    yield made
    made.finish()


@pytest.fixture(scope="module")
def module_programs():
    made = Programs()
    yield made
    made.finish()


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="session")
def pair(authority):
    """A certificate for the base host, everything under it, and loopback."""
    return authority.issue("edge", "tnl.test", "*.tnl.test", "localhost", "127.0.0.1", "::1")


@pytest.fixture
def make_server(programs, tmp_path):
    """make_server(args=(…), …) -> a started Server; each call has a folder of its own unless told."""
    count = 0

    def make(*args, folder=None, start=True, **how):
        nonlocal count
        count += 1
        server = Server(programs, folder or tmp_path / f"server{count}", args, **how)
        return server.start() if start else server

    return make


@pytest.fixture
def server(make_server):
    return make_server()


@pytest.fixture
def user(server):
    return server.user()


@pytest.fixture
def make_origin():
    made = []

    def make(handler=None, surprises=False, **how):
        origin = Origin(handler, **how)
        origin.surprises_expected = surprises
        made.append(origin)
        return origin

    yield make
    for origin in made:
        origin.close()
    for origin in made:
        assert origin.surprises_expected or not origin.surprises, origin.surprises


@pytest.fixture
def origin(make_origin):
    return make_origin()


@pytest.fixture
def make_client(programs, tmp_path):
    """make_client(server or endpoint, origin or url, token, …) -> a Client, waited for unless ready=False."""
    count = 0

    def make(server, origin, token=None, *args, ready=True, folder=None, **how):
        nonlocal count
        count += 1
        endpoint = server.endpoint if isinstance(server, Server) else server
        url = origin.url if isinstance(origin, Origin) else origin
        if isinstance(server, Server) and server.tls:
            how.setdefault("env", {}).setdefault("KAVILO_CA_CERT", str(server.tls.ca))
        client = Client(programs, folder or tmp_path / f"client{count}", endpoint, url, token, args=args,
                        label=f"tunnel{count}", **how)
        return client.wait_ready() if ready else client

    return make


@pytest.fixture
def tunnel(server, user, origin, make_client):
    """A whole path: server, user, the usual service and a client with a random name."""
    return make_client(server, origin, user.token)


# ---- shared by all tests of a module: for tables of small cases ----


@pytest.fixture(scope="module")
def shared_server(module_programs, tmp_path_factory):
    return Server(module_programs, tmp_path_factory.mktemp("server")).start()


@pytest.fixture(scope="module")
def shared_user(shared_server):
    return shared_server.user()


@pytest.fixture(scope="module")
def shared_origin():
    origin = Origin()
    yield origin
    origin.close()
    assert not origin.surprises, origin.surprises


@pytest.fixture(scope="module")
def shared_tunnel(module_programs, tmp_path_factory, shared_server, shared_user, shared_origin):
    client = Client(module_programs, tmp_path_factory.mktemp("client"), shared_server.endpoint, shared_origin.url,
                    shared_user.token, label="tunnel")
    return client.wait_ready()


@pytest.fixture
def namespaces():
    """Network namespaces, or a skip with the reason."""
    reason = Namespaces.unavailable(shutil.which("ip"))
    if reason:
        pytest.skip(reason)
    made = Namespaces()
    yield made
    made.close()


@pytest.fixture
def small_disk(tmp_path):
    """The folder of a file system of 1 MiB."""
    disk.mount(tmp_path / "disk")
    yield tmp_path / "disk"
    disk.unmount(tmp_path / "disk")
