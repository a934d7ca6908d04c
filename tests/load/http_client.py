"""A small HTTP client on sockets, whose requests can be slow, broken off, or large on purpose."""

import asyncio
import json
import time


class Answer:
    """A response, with the times at which its head and its first text came."""

    def __init__(self):
        self.status, self.headers, self.body = 0, {}, b""
        self.sent, self.first = time.monotonic(), None

    def events(self):
        """Events of a stream."""
        lines = self.body.decode("utf-8", "replace").split("\n")
        data = [line[6:] for line in lines if line.startswith("data: ")]
        return [json.loads(text) for text in data if text != "[DONE]"]


async def connect(address):
    host, port = address.rsplit(":", 1)
    return await asyncio.open_connection(host, int(port))


def head(method, path, address, length):
    return (
        f"{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\nConnection: close\r\n\r\n"
    ).encode()


async def request(address, path, body=None, method=None, leave_after=None):
    """Sends a request and reads its response; leaves in the middle after `leave_after` events."""
    answer = Answer()
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    method = method or ("GET" if body is None else "POST")
    reader, writer = await connect(address)
    try:
        writer.write(head(method, path, address, len(data)) + data)
        await writer.drain()
        answer.status = int((await reader.readline()).split()[1])
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            answer.headers[name.lower()] = value.strip()
        events = 0
        while piece := await read_piece(reader, answer.headers):
            answer.body += piece
            events += piece.count(b"data: ")
            if answer.first is None and b'"content":"' in piece:
                answer.first = time.monotonic()
            if leave_after is not None and events > leave_after:
                break
    finally:
        writer.close()
    return answer


async def read_piece(reader, headers):
    if headers.get("transfer-encoding") != "chunked":
        return await reader.read(65536)
    length = int((await reader.readline()).strip() or b"0", 16)
    piece = await reader.readexactly(length) if length else b""
    await reader.readline()
    return piece
