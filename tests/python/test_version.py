"""Clients and daemons of other protocol versions, as far as both understand each other: the first bytes of the
handshake over shared memory keep their places in every version (docs/protocol.md)."""

import socket
import struct
import threading

import pytest
import tranship

MAGIC, OTHER_VERSION = b"TSHM", 9
HELLO, WELCOME, REJECT = 1, 2, 3
REASON_VERSION = 8


def packet(kind, body=b""):
    return (MAGIC + struct.pack("<HH", OTHER_VERSION, kind) + body).ljust(64, b"\0")


@pytest.mark.parametrize("answer", [packet(WELCOME), packet(REJECT, bytes([REASON_VERSION]))], ids=["goes on", "rejects"])
def test_a_daemon_of_another_version_is_told_apart(tmp_path, answer):
    path, seen = str(tmp_path / "d.sock"), []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(path)
        listener.listen()

        def daemon():
            client, _ = listener.accept()
            with client:
                seen.append(client.recv(64))
                client.send(answer)
                # Until the client hangs up.
                client.settimeout(30)
                try:
                    client.recv(64)
                except OSError:
                    pass

        thread = threading.Thread(target=daemon)
        thread.start()
        with pytest.raises(tranship.Error) as raised:
            tranship.connect(f"unix://{path}", timeout=20)
        thread.join(60)
    assert seen[0][:4] == MAGIC and struct.unpack_from("<HH", seen[0], 4) == (1, HELLO)
    assert raised.value.kind == "version"
    text = str(raised.value)
    assert path in text and "another protocol version" in text and "of the same release" in text


def test_a_client_of_another_version_is_told_so(daemon):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(30)
        client.connect(daemon.address.removeprefix("unix://"))
        client.send(packet(HELLO))
        answer = client.recv(64)
    assert answer[:4] == MAGIC
    version, kind = struct.unpack_from("<HH", answer, 4)
    assert (version, kind, answer[8]) == (1, REJECT, REASON_VERSION)
    with tranship.connect(daemon.address) as cache:
        assert cache.ping() > 0, "others are served as before"
