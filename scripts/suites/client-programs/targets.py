"""The targets that the clients reach: HTTP with git and a page of fifty parts, an echo over TCP and
over UDP, and a name server. All on loopback, on ports that are free.

targets.py DIRECTORY serves DIRECTORY/blob and DIRECTORY/repository.git, leaves what a client should
end up with (page.digest, name.answer) and the requests it saw (requests) in DIRECTORY, prints the
ports of the web, the echo and the names and whether there is IPv6 (1 or 0), and then serves until it
is ended, ten minutes at most.
"""

import hashlib
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

DIRECTORY = os.path.abspath(sys.argv[1])
LIFETIME = 600
PARTS = [random.randbytes(random.randint(1, 100_000)) for _ in range(50)]
NAME_ANSWER = os.urandom(16).hex()

# Every part is fetched by its own request, half of them by name and half by address. The image keeps
# the page loading until the script is done, so that a browser dumps the page with the digest in it.
PAGE = b"""<!doctype html><title>fifty parts</title><p id="digest">not finished</p>
<img src="/wait">
<script>
const sha = async bytes =>
  [...new Uint8Array(await crypto.subtle.digest("SHA-256", bytes))]
    .map(octet => octet.toString(16).padStart(2, "0")).join("");
const part = async n => {
  const host = n % 2 ? "localhost" : "127.0.0.1";
  const answer = await fetch(`http://${host}:${location.port}/part/${n}`);
  return sha(await answer.arrayBuffer());
};
Promise.all([...Array(50).keys()].map(part))
  .then(digests => sha(new TextEncoder().encode(digests.join(" "))))
  .then(digest => { document.getElementById("digest").textContent = digest; },
        error => { document.getElementById("digest").textContent = error; })
  .finally(() => fetch("/finished"));
</script>
"""
page_finished = threading.Event()


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/repository.git/"):
            self.git()
        elif self.path.startswith("/blob"):
            with open(f"{DIRECTORY}/blob", "rb") as blob:
                self.answer(blob.read())
        elif self.path == "/page":
            self.answer(PAGE, "text/html")
        elif self.path.startswith("/part/"):
            self.answer(PARTS[int(self.path.removeprefix("/part/"))])
        elif self.path == "/wait":
            page_finished.wait(40)
            self.answer(b"")
        elif self.path == "/finished":
            page_finished.set()
            self.answer(b"")
        else:
            self.answer(b"", status=404)

    def do_POST(self):
        if self.path.startswith("/repository.git/"):
            self.git()
        else:
            self.answer(hashlib.sha256(self.body()).hexdigest().encode())

    do_PUT = do_POST

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        whole = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def git(self):
        """git's own server side, spoken to as a web server does it (CGI)."""
        body = self.body()
        path, _, query = self.path.partition("?")
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": DIRECTORY,
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_USER": "client-tests",
        }
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, stdout=subprocess.PIPE, timeout=30
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        status = int(fields.get("Status", "200").split()[0])
        self.answer(content, fields.get("Content-Type", "text/plain"), status)

    def answer(self, content, kind="application/octet-stream", status=200):
        with open(f"{DIRECTORY}/requests", "a") as requests:
            requests.write(f"{self.command} {self.path} {status}\n")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


def serve_web(listener):
    server = ThreadingHTTPServer(listener.getsockname()[:2], Web, bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    server.serve_forever()


def serve_echo(listener):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=echo, args=(client,), daemon=True).start()


def echo(client):
    with client:
        client.settimeout(30)
        try:
            while octets := client.recv(65536):
                client.sendall(octets)
        except OSError:
            pass


def serve_datagram_echo(endpoint):
    while True:
        datagram, sender = endpoint.recvfrom(65535)
        endpoint.sendto(datagram, sender)


def name_answer(query):
    """Answers every question with one TXT record, whatever its type (RFC 1035)."""
    question_end = query.index(b"\0", 12) + 5
    header = query[:2] + b"\x84\x00" + struct.pack(">4H", 1, 1, 0, 0)
    text = bytes([len(NAME_ANSWER)]) + NAME_ANSWER.encode()
    record = b"\xc0\x0c" + struct.pack(">2HIH", 16, 1, 60, len(text)) + text
    return header + query[12:question_end] + record


def serve_names(endpoint):
    while True:
        query, sender = endpoint.recvfrom(4096)
        endpoint.sendto(name_answer(query), sender)


def bound(families, kinds):
    """Sockets of all these kinds and families on one port, and that port."""
    for _ in range(100):
        sockets, port = [], 0
        try:
            for kind in kinds:
                for family, address in families:
                    one = socket.socket(family, kind)
                    sockets.append(one)
                    if family == socket.AF_INET6:
                        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    one.bind((address, port))
                    port = one.getsockname()[1]
                    if kind == socket.SOCK_STREAM:
                        one.listen(128)
            return sockets, port
        except OSError:
            for one in sockets:
                one.close()
    sys.exit("no port is free for every family")


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
        return True
    except OSError:
        return False


def main():
    families = [(socket.AF_INET, "127.0.0.1")]
    if has_ipv6():
        families.append((socket.AF_INET6, "::1"))
    stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
    services = [
        ([stream], [serve_web]),
        ([stream, datagram], [serve_echo, serve_datagram_echo]),
        ([datagram], [serve_names]),
    ]
    ports = []
    for kinds, servers in services:
        sockets, port = bound(families, kinds)
        ports.append(port)
        for one in sockets:
            serve = servers[kinds.index(one.type)]
            threading.Thread(target=serve, args=(one,), daemon=True).start()

    digests = " ".join(hashlib.sha256(part).hexdigest() for part in PARTS)
    with open(f"{DIRECTORY}/page.digest", "w") as page:
        page.write(hashlib.sha256(digests.encode()).hexdigest())
    with open(f"{DIRECTORY}/name.answer", "w") as answer:
        answer.write(NAME_ANSWER)
    print(*ports, len(families) - 1, flush=True)
    time.sleep(LIFETIME)


main()
