"""A server of uWSGI's protocol that answers with what it was told: its variables and the body, as JSON."""

from __future__ import annotations

import json
import socket
import struct
import sys
from pathlib import Path


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("cut short")
        data += part
    return data


def _variables(data: bytes) -> dict[str, str]:
    values, texts = {}, []
    while data:
        (length,) = struct.unpack("<H", data[:2])
        texts.append(data[2 : 2 + length].decode())
        data = data[2 + length :]
    for name, value in zip(texts[::2], texts[1::2], strict=True):
        values[name] = value
    return values


def serve(path: Path) -> None:
    """Serves for ever; /busy is answered with the app's own 503."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                _, length, _ = struct.unpack("<BHB", _exactly(connection, 4))
                told = _variables(_exactly(connection, length))
                told["body"] = _exactly(connection, int(told.get("CONTENT_LENGTH") or 0)).decode()
                status = "503 Busy" if told["PATH_INFO"] == "/busy" else "200 OK"
                body = json.dumps(told).encode()
                connection.sendall(
                    f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\r\n".encode() + body
                )


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
