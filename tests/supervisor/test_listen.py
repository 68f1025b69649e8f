"""Listening sockets: TCP, IPv6, Unix; taken addresses; what people are told to type."""

from __future__ import annotations

import socket

import pytest

from gateway.supervisor.listen import StartError, listen, unlink, url


def test_a_tcp_address_is_listened_on_and_shown_as_a_url():
    with listen("127.0.0.1:0", "server.listen") as sock:
        port = sock.getsockname()[1]
        assert url(sock) == f"http://127.0.0.1:{port}"
        assert url(sock, tls=True) == f"https://127.0.0.1:{port}"
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        with socket.create_connection(("127.0.0.1", port), 5):
            pass


def test_an_address_for_all_is_shown_as_one_that_can_be_reached():
    with listen("0.0.0.0:0", "server.listen") as sock:
        assert url(sock) == f"http://127.0.0.1:{sock.getsockname()[1]}"


def test_an_address_in_use_is_refused_with_its_name():
    with listen("127.0.0.1:0", "server.listen") as sock:
        taken = f"127.0.0.1:{sock.getsockname()[1]}"
        with pytest.raises(StartError, match=rf"server\.admin = '{taken}'.*another process listens there"):
            listen(taken, "server.admin", patience=0)


def test_an_address_whose_connections_still_linger_can_be_taken_again():
    with listen("127.0.0.1:0", "server.listen") as sock:
        address = sock.getsockname()
        with socket.create_connection(address, 5) as client:
            accepted, _ = sock.accept()
            accepted.close()  # the server side closes first: TIME_WAIT
            assert client.recv(1) == b""
    listen(f"127.0.0.1:{address[1]}", "server.listen", patience=0).close()


def test_a_unix_socket_is_made_and_its_file_removed_afterwards(tmp_path):
    path = tmp_path / "data.sock"
    with listen(f"unix:{path}", "server.listen") as sock:
        assert url(sock) == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
        unlink(f"unix:{path}")
        assert path.exists()  # somebody listens there
    unlink(f"unix:{path}")
    assert not path.exists()


def test_a_socket_file_left_behind_is_replaced_but_a_live_one_is_not(tmp_path):
    path = tmp_path / "data.sock"
    listen(f"unix:{path}", "server.listen").close()
    assert path.exists()
    with listen(f"unix:{path}", "server.listen"), pytest.raises(StartError, match="another process listens"):
        listen(f"unix:{path}", "server.admin", patience=0)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("mine")
    with pytest.raises(StartError):
        listen(f"unix:{path}", "server.listen", patience=0)
    assert path.read_text() == "mine"
