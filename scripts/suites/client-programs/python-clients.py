"""PySocks and python-socks through the proxy.

python-clients.py CASE socks5|socks4|http PROXY_PORT TARGET_PORT [USER PASSWORD] echoes octets off the
target at TARGET_PORT, says `same` when they came back unchanged, and fails otherwise.
"""

import asyncio
import os
import socket
import sys

import python_socks
import socks
from python_socks.async_.asyncio import Proxy as AsyncProxy
from python_socks.sync import Proxy

case, protocol, proxy_port, target_port = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
user, password = sys.argv[5:7] if len(sys.argv) > 5 else (None, None)
SENT = os.urandom(300_000)
DATAGRAM_LENGTHS = [1, 512, 1400, 9000, 60_000]


def echoed(stream):
    """Sends while it reads: an echo stalls when nobody takes what comes back."""
    stream.settimeout(15)
    came = b""
    for start in range(0, len(SENT), 10_000):
        stream.sendall(SENT[start : start + 10_000])
        came += stream.recv(65536)
    stream.shutdown(socket.SHUT_WR)
    while octets := stream.recv(65536):
        came += octets
    return came == SENT


def pysocks(kind, remote_names=True):
    one = socks.socksocket(socket.AF_INET, kind)
    one.set_proxy(
        socks.PROXY_TYPES[protocol.upper()],
        "127.0.0.1",
        proxy_port,
        rdns=remote_names,
        username=user,
        password=password,
    )
    one.settimeout(15)
    return one


def pysocks_tcp(host, remote_names=True):
    with pysocks(socket.SOCK_STREAM, remote_names) as one:
        one.connect((host, target_port))
        return echoed(one)


def pysocks_udp(host):
    with pysocks(socket.SOCK_DGRAM) as one:
        for length in DATAGRAM_LENGTHS:
            datagram = os.urandom(length)
            one.sendto(datagram, (host, target_port))
            came, (came_from, from_port) = one.recvfrom(65535)
            if came != datagram or from_port != target_port:
                print(f"of {length} octets {len(came)} came, from {came_from} port {from_port}")
                return False
        return True


def python_socks_tcp(host, remote_names=True):
    proxy = Proxy(
        python_socks.ProxyType[protocol.upper()], "127.0.0.1", proxy_port, user, password, rdns=remote_names
    )
    with proxy.connect(host, target_port, timeout=15) as one:
        return echoed(one)


async def python_socks_asyncio(host):
    """Twenty at once in one thread, which the blocking form cannot do."""

    async def one():
        proxy = AsyncProxy(
            python_socks.ProxyType[protocol.upper()], "127.0.0.1", proxy_port, user, password, rdns=True
        )
        connected = await proxy.connect(host, target_port, timeout=15)
        reader, writer = await asyncio.open_connection(sock=connected)
        writer.write(SENT)
        writer.write_eof()
        came = await asyncio.wait_for(reader.read(), 15)
        writer.close()
        return came == SENT

    return all(await asyncio.gather(*(one() for _ in range(20))))


CASES = {
    "pysocks-address": lambda: pysocks_tcp("127.0.0.1"),
    "pysocks-name": lambda: pysocks_tcp("localhost"),
    "pysocks-name-looked-up-here": lambda: pysocks_tcp("localhost", remote_names=False),
    "pysocks-udp-address": lambda: pysocks_udp("127.0.0.1"),
    "pysocks-udp-name": lambda: pysocks_udp("localhost"),
    "python-socks-address": lambda: python_socks_tcp("127.0.0.1"),
    "python-socks-ipv6": lambda: python_socks_tcp("::1"),
    "python-socks-name": lambda: python_socks_tcp("localhost"),
    "python-socks-asyncio": lambda: asyncio.run(python_socks_asyncio("localhost")),
}

if not CASES[case]():
    sys.exit("what came back differs from what was sent")
print("same")
