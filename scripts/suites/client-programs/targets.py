"""The targets that the clients reach: HTTP with git, a page of fifty parts and the files of mirrors.py,
an echo over TCP and over UDP, and a name server. All on loopback, on ports that are free; or, if an ADDRESS
is given, the web alone at this address, on port 80, and with DIRECTORY/server.pem on port 443.

targets.py DIRECTORY [ADDRESS] serves DIRECTORY/blob, DIRECTORY/repository.git and DIRECTORY/www, leaves what
a client should end up with (name.answer) and the requests it saw (requests, which a case may empty, and all-requests) in
DIRECTORY, prints the
ports of the web, the echo and the names and whether there is IPv6 (1 or 0), and then serves until it
is ended, ten minutes at most.
"""

import hashlib
import os
import random
import re
import socket
import ssl
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

# Every part is fetched by its own request, every second one from the host ALSO, and sent back to where it came from,
# which answers 200 if it is still the same.
PAGE = b"""<!doctype html><title>fifty parts</title><p id="same">not finished</p>
<script>
const also = new URLSearchParams(location.search).get("also");
const part = async n => {
  const url = `${location.protocol}//${n % 2 ? also : location.hostname}:${location.port}/part/${n}`;
  const body = await (await fetch(url)).arrayBuffer();
  return (await fetch(url, { method: "POST", body, headers: { "Content-Type": "text/plain" } })).ok;
};
const say = text => { document.getElementById("same").textContent = text; };
Promise.all([...Array(50).keys()].map(part))
  .then(same => say(`${same.filter(Boolean).length} parts are the same`), say)
  .finally(() => fetch("/finished"));
</script>
"""


class Web(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/repository.git/"):
            self.git()
        elif self.path.startswith("/blob"):
            self.file(f"{DIRECTORY}/blob")
        elif self.path.startswith("/page?"):
            self.answer(PAGE, "text/html")
        elif self.path.startswith("/part/"):
            self.answer(PARTS[int(self.path.removeprefix("/part/"))])
        elif self.path == "/finished":
            self.answer(b"")
        else:
            self.file(f"{DIRECTORY}/www/{self.path}")

    do_HEAD = do_GET

    def file(self, path):
        """A file, or the part of it that a client still lacks."""
        path = f"{path}/index.html" if path.endswith("/") else path
        if ".." in path or not os.path.isfile(path):
            return self.answer(b"", status=404)
        with open(path, "rb") as file:
            content = file.read()
        kind = "text/html" if path.endswith(".html") else "application/octet-stream"
        if not (asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))):
            return self.answer(content, kind)
        first, last = int(asked[1]), int(asked[2] or len(content) - 1)
        place = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
        self.answer(content[first : last + 1], kind, 206, place)

    def do_POST(self):
        if self.path.startswith("/repository.git/"):
            self.git()
        elif self.path.startswith("/part/"):
            same = self.body() == PARTS[int(self.path.removeprefix("/part/"))]
            self.answer(b"", status=200 if same else 400)
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

    def answer(self, content, kind="application/octet-stream", status=200, fields={}):
        of_a_proxy = [name for name in self.headers if name.lower().startswith("proxy-")]
        port = self.connection.getsockname()[1]
        line = " ".join([self.command, self.path, str(status), str(port), *of_a_proxy])
        for name in "requests", "all-requests":
            with open(f"{DIRECTORY}/{name}", "a") as requests:
                requests.write(line + "\n")
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Accept-Ranges", "bytes")
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_):
        pass


class WebServer(ThreadingHTTPServer):
    """Its TLS is negotiated in the thread of the connection: accept() never waits for a client."""

    tls = None

    def finish_request(self, request, client_address):
        if self.tls:
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, *_):
        """A client that goes away."""


def serve_web(listener, tls=None):
    server = WebServer(listener.getsockname()[:2], Web, bind_and_activate=False)
    server.socket.close()
    server.socket, server.tls = listener, tls
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


def serve_at(address):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(f"{DIRECTORY}/server.pem")
    listeners = [socket.create_server((address, port), backlog=128) for port in (80, 443)]
    threading.Thread(target=serve_web, args=(listeners[0],), daemon=True).start()
    threading.Thread(target=serve_web, args=(listeners[1], tls), daemon=True).start()
    print("80 443", flush=True)
    time.sleep(LIFETIME)


def main():
    if len(sys.argv) > 2:
        return serve_at(sys.argv[2])
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

    with open(f"{DIRECTORY}/name.answer", "w") as answer:
        answer.write(NAME_ANSWER)
    print(*ports, len(families) - 1, flush=True)
    time.sleep(LIFETIME)


main()
