"""Links against a real server on 127.0.0.1: late, whole and in order, stalled, moved, cut."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greenops_pipelines.process.ports import LOOPBACK, accepts_connections
from greenops_pipelines.recovery.link import Link, Links

MEGABYTES = 8 * 1024 * 1024
QUIET_SECONDS = 0.25
"""For which nothing may be heard; without a delay a byte takes less than a hundredth of it."""

Answering = Callable[[socket.socket], None]


class Server:
    """Answers each connection in a thread of its own, until the `with` block is left."""

    def __init__(self, answer: Answering) -> None:
        self._answer = answer
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self._answer(connection)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()


def echo(connection: socket.socket) -> None:
    while chunk := connection.recv(65536):
        connection.sendall(chunk)


@contextlib.contextmanager
def linked(answer: Answering = echo, delay_seconds: float = 0.0) -> Iterator[Link]:
    """A link to a server of its own."""
    with Server(answer) as server, Links() as links:
        yield links.add("wan", server.port, delay_seconds)


def connect(link: Link) -> socket.socket:
    return socket.create_connection((LOOPBACK, link.port), timeout=10)


def exactly(connection: socket.socket, count: int) -> bytes:
    """As many bytes, or fewer where the other side ended before."""
    found = bytearray()
    while len(found) < count and (chunk := connection.recv(min(65536, count - len(found)))):
        found += chunk
    return bytes(found)


def to_the_end(connection: socket.socket, pause_seconds: float = 0.0) -> bytes:
    found = bytearray()
    while chunk := connection.recv(65536):
        found += chunk
        time.sleep(pause_seconds)
    return bytes(found)


def asked(connection: socket.socket, what: bytes) -> bytes:
    connection.sendall(what)
    return exactly(connection, len(what))


def hears_nothing(connection: socket.socket, seconds: float = QUIET_SECONDS) -> bool:
    connection.settimeout(seconds)
    try:
        connection.recv(1)
    except TimeoutError:
        return True
    else:
        return False
    finally:
        connection.settimeout(10)


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def noise(seed: int, count: int) -> bytes:
    return random.Random(seed).randbytes(count)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# Late


def test_each_direction_is_later_by_the_delay() -> None:
    """Never less; and the best of several is not much more, however busy the machine is."""
    received: list[float] = []
    answered: list[float] = []

    def answer(connection: socket.socket) -> None:
        while connection.recv(1):
            received.append(time.monotonic())
            # Longer than the way there, so that the way back cannot hide in it.
            time.sleep(0.15)
            answered.append(time.monotonic())
            connection.sendall(b"a")

    sent: list[float] = []
    heard: list[float] = []
    with linked(answer, 0.1) as link, connect(link) as client:
        for _ in range(3):
            sent.append(time.monotonic())
            client.sendall(b"q")
            assert client.recv(1) == b"a"
            heard.append(time.monotonic())
    there = [late - early for early, late in zip(sent, received, strict=True)]
    back = [late - early for early, late in zip(answered, heard, strict=True)]
    assert 0.1 <= min(there) < 0.19
    assert 0.1 <= min(back) < 0.19


def test_without_a_delay_an_answer_comes_at_once() -> None:
    with linked() as link, connect(link) as client:
        asked(client, b"a")
        begun = time.monotonic()
        for _ in range(20):
            assert asked(client, b"q") == b"q"
        assert (time.monotonic() - begun) / 20 < 0.05


def test_what_is_sent_in_a_row_is_delayed_once_and_not_added_up() -> None:
    with linked(delay_seconds=0.1) as link, connect(link) as client:
        begun = time.monotonic()
        for number in range(50):
            client.sendall(bytes([number]))
            time.sleep(0.002)
        assert exactly(client, 50) == bytes(range(50))
        assert 0.2 <= time.monotonic() - begun < 2


def test_an_end_is_as_late_as_a_byte() -> None:
    with linked(lambda connection: None, 0.2) as link:
        begun = time.monotonic()
        with connect(link) as client:
            assert client.recv(1) == b""
        assert 0.2 <= time.monotonic() - begun < 2


# Whole and in order


def test_many_megabytes_come_back_whole_and_in_order() -> None:
    content = noise(1, MEGABYTES)
    with linked(delay_seconds=0.02) as link, connect(link) as client:
        sender = threading.Thread(target=client.sendall, args=(content,))
        sender.start()
        assert sha256(exactly(client, MEGABYTES)) == sha256(content)
        sender.join(10)


def test_both_sides_may_send_many_megabytes_at_once() -> None:
    theirs, ours = noise(2, MEGABYTES), noise(3, MEGABYTES)
    heard: list[str] = []

    def talk(connection: socket.socket) -> None:
        sender = threading.Thread(target=connection.sendall, args=(theirs,))
        sender.start()
        heard.append(sha256(exactly(connection, MEGABYTES)))
        sender.join(10)
        connection.sendall(b".")
        connection.recv(1)

    with linked(talk, 0.02) as link, connect(link) as client:
        sender = threading.Thread(target=client.sendall, args=(ours,))
        sender.start()
        assert sha256(exactly(client, MEGABYTES)) == sha256(theirs)
        assert client.recv(1) == b"."
        sender.join(10)
    assert heard == [sha256(ours)]


@pytest.fixture(scope="module")
def echoing() -> Iterator[Link]:
    with linked() as link:
        yield link


@settings(max_examples=40)
@given(chunks=st.lists(st.binary(min_size=1, max_size=5000), max_size=12), big=st.integers(0, 300_000))
def test_chunks_of_any_size_arrive_as_one_stream(echoing: Link, chunks: list[bytes], big: int) -> None:
    content = b"".join(chunks) + noise(big, big)
    with connect(echoing) as client:

        def send() -> None:
            for chunk in (*chunks, content[len(content) - big :]):
                client.sendall(chunk)

        sender = threading.Thread(target=send)
        sender.start()
        assert exactly(client, len(content)) == content
        sender.join(10)


def test_connections_do_not_mix() -> None:
    with linked(delay_seconds=0.05) as link, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(link)) for _ in range(20)]
        for number, client in enumerate(clients):
            client.sendall(f"client {number:2}".encode())
        assert [exactly(client, 9) for client in clients] == [f"client {n:2}".encode() for n in range(20)]


# An end


def test_the_end_of_the_server_delivers_its_last_byte() -> None:
    content = noise(4, MEGABYTES)
    with linked(lambda connection: connection.sendall(content), 0.02) as link, connect(link) as client:
        assert sha256(to_the_end(client)) == sha256(content)


def test_the_end_of_the_client_delivers_its_last_byte() -> None:
    content, heard = noise(5, MEGABYTES), list[bytes]()
    done = threading.Event()

    def listen(connection: socket.socket) -> None:
        heard.append(to_the_end(connection))
        done.set()

    with linked(listen, 0.02) as link:
        with connect(link) as client:
            client.sendall(content)
        assert done.wait(10)
    assert sha256(heard[0]) == sha256(content)


def test_an_end_waits_for_a_side_that_does_not_read_yet() -> None:
    """Of some length, the last bytes are still with the link when all else lies in the kernel: it is one of these."""
    lengths = range(2_000_000, 5_000_000, 50_000)

    def answer(connection: socket.socket) -> None:
        connection.sendall(bytes(int(exactly(connection, 7))))

    with linked(answer) as link, contextlib.ExitStack() as stack:
        clients = []
        for length in lengths:
            client = stack.enter_context(socket.socket())
            client.settimeout(10)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            client.connect((LOOPBACK, link.port))
            client.sendall(str(length).encode())
            clients.append(client)
        time.sleep(1)
        assert [len(to_the_end(client)) for client in clients] == list(lengths)


def test_an_end_delivers_its_last_byte_to_a_side_that_is_sending() -> None:
    """As TCP has it: the same without a link delivers everything."""
    content = noise(7, 3_000_000)

    def answer(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
        to_the_end(connection)

    with linked(answer) as link, connect(link) as client:
        finished = threading.Event()

        def flood() -> None:
            with contextlib.suppress(OSError):
                while not finished.is_set():
                    client.sendall(bytes(65536))

        sender = threading.Thread(target=flood)
        sender.start()
        time.sleep(0.1)
        try:
            found = to_the_end(client, 0.002)
        finally:
            finished.set()
            client.shutdown(socket.SHUT_RDWR)
            sender.join(10)
    assert len(found) == len(content)


def test_the_end_of_one_side_ends_the_other() -> None:
    gone = threading.Event()

    def listen(connection: socket.socket) -> None:
        to_the_end(connection)
        gone.set()

    with linked(listen) as link:
        client = connect(link)
        client.sendall(b"x")
        client.close()
        assert gone.wait(5)


def test_what_was_sent_before_a_reset_arrives_before_it() -> None:
    """What a killed server had sent is on its way already, and the reset comes behind it."""

    def answer(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"last words")
        time.sleep(0.05)
        reset(connection)

    with linked(answer, 0.2) as link, connect(link) as client:
        client.sendall(b"q")
        assert exactly(client, 10) == b"last words"
        assert is_closed(client)


def reset(connection: socket.socket) -> None:
    """Closes with a reset, as the kernel does for a killed process with unread input."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_a_link_to_nothing_closes_what_connects() -> None:
    with Server(echo) as gone:
        port = gone.port
    with Links() as links, connect(links.add("wan", port)) as client:
        assert is_closed(client)


# Stalled


def test_a_stall_holds_both_directions_and_resume_delivers_them() -> None:
    heard: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        connection.sendall(connection.recv(2))
        heard.append(exactly(connection, 8))
        connection.recv(1)

    with linked(answer) as link, connect(link) as client:
        assert asked(client, b"up") == b"up"
        link.stall()
        client.sendall(b"question")
        assert hears_nothing(client)
        assert heard == []
        link.resume()
        until(lambda: heard == [b"question"])


def test_what_the_server_says_during_a_stall_is_heard_after_it() -> None:
    speak = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(connection.recv(2))
        speak.wait(10)
        connection.sendall(b"answer")
        connection.recv(1)

    with linked(answer) as link, connect(link) as client:
        assert asked(client, b"up") == b"up"
        link.stall()
        speak.set()
        assert hears_nothing(client)
        link.resume()
        assert exactly(client, 6) == b"answer"


def test_megabytes_that_a_stall_held_arrive_whole() -> None:
    content = noise(8, MEGABYTES)
    with linked(delay_seconds=0.02) as link, connect(link) as client:
        asked(client, b"up")
        link.stall()
        sender = threading.Thread(target=client.sendall, args=(content,))
        sender.start()
        assert hears_nothing(client)
        link.resume()
        assert sha256(exactly(client, MEGABYTES)) == sha256(content)
        sender.join(10)


def test_bytes_that_were_on_their_way_stop_as_well() -> None:
    with linked(delay_seconds=0.3) as link, connect(link) as client:
        client.sendall(b"q")
        time.sleep(0.02)
        link.stall()
        assert hears_nothing(client, 0.8)
        link.resume()
        assert client.recv(1) == b"q"


def test_a_new_connection_during_a_stall_opens_and_hears_nothing() -> None:
    arrived: list[int] = []

    def answer(connection: socket.socket) -> None:
        arrived.append(1)
        connection.sendall(b"welcome")

    with linked(answer) as link:
        link.stall()
        with connect(link) as client:
            client.sendall(b"q")
            assert hears_nothing(client)
            assert arrived == []
            link.resume()
            assert exactly(client, 7) == b"welcome"


def test_an_end_is_held_by_a_stall() -> None:
    with linked(lambda connection: connection.sendall(connection.recv(1))) as link, connect(link) as client:
        time.sleep(0.05)
        link.stall()
        client.sendall(b"q")
        assert hears_nothing(client)
        link.resume()
        assert to_the_end(client) == b"q"


def test_a_reset_is_held_by_a_stall() -> None:
    """Nothing is carried: nobody beyond the link can know that a server was killed."""
    kill = threading.Event()

    def answer(connection: socket.socket) -> None:
        connection.sendall(connection.recv(2))
        kill.wait(10)
        reset(connection)

    with linked(answer) as link, connect(link) as client:
        assert asked(client, b"up") == b"up"
        link.stall()
        kill.set()
        assert hears_nothing(client)
        link.resume()
        assert is_closed(client)


# Cut, and moved


def test_a_cut_closes_what_is_open_and_refuses_what_comes() -> None:
    with linked() as link, connect(link) as client:
        assert asked(client, b"up") == b"up"
        link.cut()
        assert is_closed(client)
        for _ in range(3):
            with connect(link) as late:
                assert is_closed(late)


def test_a_cut_ends_what_a_stall_has_held() -> None:
    with linked() as link, connect(link) as client:
        asked(client, b"up")
        link.stall()
        client.sendall(b"q")
        with connect(link) as waiting:
            assert hears_nothing(waiting)
            link.cut()
            assert is_closed(client)
            assert is_closed(waiting)


def test_after_a_cut_resume_takes_new_connections() -> None:
    with linked() as link:
        link.cut()
        link.resume()
        with connect(link) as client:
            assert asked(client, b"up") == b"up"


def test_a_cut_closes_the_servers_side_too() -> None:
    gone = threading.Event()

    def listen(connection: socket.socket) -> None:
        connection.sendall(connection.recv(1))
        with contextlib.suppress(OSError):
            to_the_end(connection)
        gone.set()

    with linked(listen) as link, connect(link) as client:
        asked(client, b"q")
        link.cut()
        assert gone.wait(5)


def named(name: bytes) -> Answering:
    """A server that answers everything with its name."""

    def answer(connection: socket.socket) -> None:
        while connection.recv(1):
            connection.sendall(name)

    return answer


def test_route_moves_new_connections_and_closes_the_old() -> None:
    with Server(named(b"us")) as us, Server(named(b"eu")) as eu, Links() as links:
        link = links.add("endpoint", us.port)
        with connect(link) as old:
            old.sendall(b"q")
            assert exactly(old, 2) == b"us"
            link.route(eu.port)
            assert is_closed(old)
        for _ in range(3):
            with connect(link) as new:
                new.sendall(b"q")
                assert exactly(new, 2) == b"eu"


@pytest.mark.parametrize("state", ["stalled", "cut"])
def test_route_opens_a_link_that_was_closed(state: str) -> None:
    with Server(named(b"us")) as us, Server(named(b"eu")) as eu, Links() as links:
        link = links.add("endpoint", us.port)
        {"stalled": link.stall, "cut": link.cut}[state]()
        link.route(eu.port)
        with connect(link) as new:
            new.sendall(b"q")
            assert exactly(new, 2) == b"eu"


def test_links_of_one_drill_are_stalled_one_by_one() -> None:
    with Server(echo) as server, Links() as links:
        wan, endpoint = links.add("wan", server.port), links.add("endpoint", server.port)
        assert wan.port != endpoint.port
        with connect(wan) as replica, connect(endpoint) as client:
            wan.stall()
            replica.sendall(b"r")
            assert asked(client, b"c") == b"c"
            assert hears_nothing(replica)


# Afterwards


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("state", ["idle", "used", "stalled", "cut", "just opened"])
def test_nothing_is_left_of_links(state: str) -> None:
    with Server(echo) as server:
        threads, files = set(threading.enumerate()), descriptors()
        with Links() as links:
            ports = [(link := links.add(f"link {n}", server.port, 0.01)).port for n in range(2)]
            if state != "idle":
                clients = [connect(link) for _ in range(10)]
                for client in clients if state != "just opened" else ():
                    asked(client, b"q")
                if state == "stalled":
                    link.stall()
                    for client in clients:
                        client.sendall(noise(9, 100_000))
                if state == "cut":
                    link.cut()
        assert "links" not in {thread.name for thread in set(threading.enumerate()) - threads}
        assert not any(accepts_connections(port) for port in ports)
        if state != "idle":
            assert all(is_closed(client) for client in clients)
            for client in clients:
                client.close()
        # The server's own threads see the ends of their connections.
        until(lambda: not set(threading.enumerate()) - threads and descriptors() <= files)


def test_who_connects_while_the_block_is_left_is_closed_as_well() -> None:
    """A standby tries again and again, and does not know that the drill is over."""
    left = 0
    for _ in range(30):
        files = descriptors()
        with Links() as links:
            link = links.add("wan")
            link.stall()
            clients = [connect(link) for _ in range(3)]
        left += descriptors() - files - len(clients)
        for client in clients:
            client.close()
    assert left == 0


def test_an_error_inside_the_block_closes_the_links_and_is_raised() -> None:
    ports: list[int] = []

    def broken() -> None:
        with Links() as links:
            ports.append(links.add("wan").port)
            assert accepts_connections(ports[0])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert not accepts_connections(ports[0])
