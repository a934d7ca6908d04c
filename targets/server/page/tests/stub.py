"""A server for the page's tests: it streams events as `vaquita serve` does, chosen by the words of the question."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import answers

MODEL = "reference-e4"


class Stream:
    """The bytes of an answer, which a connection that was lost can have again from any place."""

    def __init__(self):
        self.bytes = bytearray()
        self.ended = self.stopped = self.answer_now = False
        self.changed = threading.Condition()

    def add(self, data):
        with self.changed:
            self.bytes += data
            self.changed.notify_all()

    def end(self):
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def follow(self, position):
        """Bytes from `position` on, as they come."""
        while True:
            with self.changed:
                while len(self.bytes) == position and not self.ended:
                    self.changed.wait(5)
                piece = bytes(self.bytes[position:])
                ended = self.ended
            if piece:
                yield piece
            position += len(piece)
            if ended and not piece:
                return


class Stub:
    """State of the server, open to the tests."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.headers = [line.split(": ", 1) for line in (self.folder / "headers").read_text().splitlines()]
        self.files = {}
        for line in (self.folder / "index").read_text().splitlines():
            name, path, content_type, etag = line.split("\t")
            self.files[path] = ((self.folder / name).read_bytes(), content_type, etag)
        self.streams = {}
        self.requests = []  # bodies of chat completions
        self.paths = []  # of all requests
        self.connections = set()
        self.origins = set()  # of requests that change something
        self.key = None
        self.loading = False
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Handler(self, *a))
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        """Ends as a server that is switched off: its connections end, too."""
        self.server.shutdown()
        self.server.server_close()
        for connection in list(self.connections):
            try:
                connection.shutdown(2)
            except OSError:
                pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, stub, *args):
        self.stub = stub
        super().__init__(*args)

    def setup(self):
        super().setup()
        self.stub.connections.add(self.connection)

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass  # The page has left.

    def finish(self):
        self.stub.connections.discard(self.connection)
        try:
            super().finish()
        except OSError:
            pass

    def log_message(self, *args):
        pass

    def reply(self, status, body, headers=()):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, message, headers=()):
        self.reply(status, {"error": {"message": message, "type": "error", "param": None, "code": None}}, headers)

    def allowed(self):
        self.stub.paths.append(self.path)
        if self.stub.key and self.headers.get("Authorization") != f"Bearer {self.stub.key}":
            self.refuse(401, "wrong key")
            return False
        if self.stub.loading:
            self.refuse(503, "Loading model")
            return False
        return True

    def do_GET(self):
        address = urlparse(self.path)
        if address.path in self.stub.files:
            body, content_type, etag = self.stub.files[address.path]
            self.stub.paths.append(self.path)
            self.send_response(200)
            for name, value in [*self.stub.headers, ("Content-Type", content_type), ("ETag", etag)]:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif not self.allowed():
            return
        elif address.path == "/v1/models":
            self.reply(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        elif address.path == "/props":
            self.reply(200, {"default_generation_settings": {"n_ctx": 4096}, "thinking": True})
        elif address.path == "/v1/stream":
            asked = parse_qs(address.query)
            stream = self.stub.streams.get(asked["conv_id"][0])
            if stream is None:
                return self.refuse(404, "no such stream")
            self.stream(stream, int(asked["from"][0]))
        else:
            self.refuse(404, "not found")

    def do_DELETE(self):
        address = urlparse(self.path)
        if not self.allowed():
            return
        stream = self.stub.streams.get(parse_qs(address.query)["conv_id"][0])
        if stream:
            stream.stopped = True
        self.reply(200, {})

    def do_POST(self):
        self.stub.origins.add(self.headers.get("Origin"))
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return
        if self.path == "/tokenize":
            self.reply(200, {"tokens": list(range(len(body["content"].split())))})
        elif self.path == "/v1/chat/completions/control":
            for stream in self.stub.streams.values():
                stream.answer_now = True
            self.reply(200, {"ok": True})
        elif self.path == "/v1/chat/completions":
            self.stub.requests.append(body)
            question = body["messages"][-1]["content"]
            if question == "busy":
                return self.refuse(503, "the queue is full", [("Retry-After", "7")])
            if question == "too long":
                return self.refuse(400, "the prompt has 5000 tokens, the context 4096")
            stream = self.stub.streams[self.headers["X-Conversation-Id"]] = Stream()
            threading.Thread(target=write, args=(stream, question, body), daemon=True).start()
            self.stream(stream, 0, breaks=question.startswith("drop"))
        else:
            self.refuse(404, "not found")

    def stream(self, stream, position, breaks=False):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        sent = 0
        try:
            for piece in stream.follow(position):
                if breaks and sent + len(piece) > 1500:
                    # In the middle of an event, as networks do.
                    piece = piece[: max(1, 1500 - sent)]
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.flush()
                    self.close_connection = True
                    self.connection.shutdown(2)
                    return
                sent += len(piece)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass


def write(stream, question, body):
    """Computes the answer: it goes on without a reader, and ends when it is stopped."""
    for event in answers.events(question, body, stream):
        if stream.stopped:
            break
        if isinstance(event, float):
            time.sleep(event)
        else:
            stream.add(event if isinstance(event, bytes) else b"data: " + json.dumps(event).encode() + b"\n\n")
    stream.end()


if __name__ == "__main__":
    import sys

    stub = Stub(sys.argv[1])
    print(f"http://localhost:{stub.port}/", flush=True)
    threading.Event().wait()
