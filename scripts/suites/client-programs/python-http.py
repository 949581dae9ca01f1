"""Python's own HTTP client and requests through an HTTP proxy.

python-http.py urllib|requests PROXY_URL URL BLOB fetches URL/blob and sends the file BLOB to URL/, says `same` when
both arrived unchanged, and fails otherwise. The proxy's URL may have a user and a password in it.
"""

import hashlib
import sys
import urllib.request

which, proxy, url, path = sys.argv[1:]
proxies = {"http": proxy, "https": proxy}
with open(path, "rb") as file:
    BLOB = file.read()
DIGEST = hashlib.sha256(BLOB).hexdigest().encode()


def chunks():
    """What has no length is sent chunked."""
    for start in range(0, len(BLOB), 50_000):
        yield BLOB[start : start + 50_000]


def by_urllib():
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    with opener.open(f"{url}/blob", timeout=15) as answer:
        came = answer.read()
    with opener.open(urllib.request.Request(f"{url}/", data=BLOB), timeout=15) as answer:
        return came, answer.read()


def by_requests():
    import requests

    with requests.Session() as session:
        session.proxies = proxies
        came = session.get(f"{url}/blob", timeout=15)
        came.raise_for_status()
        return came.content, session.post(f"{url}/", data=chunks(), timeout=15).content


if {"urllib": by_urllib, "requests": by_requests}[which]() != (BLOB, DIGEST):
    sys.exit("what arrived differs from what was sent")
print("same")
