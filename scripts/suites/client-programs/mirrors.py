"""The files that apt, pip and npm look for in a mirror, each with packages that hold something of the blob.

mirrors.py DIRECTORY writes below DIRECTORY/www: apt (twelve packages, so that apt sends requests
ahead), simple (pip) and npm, for mirrors at web.example.
"""

import base64
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile

DIRECTORY = sys.argv[1]
WWW = f"{DIRECTORY}/www"
with open(f"{DIRECTORY}/blob", "rb") as blob:
    BLOB = blob.read()


def write(path, content):
    path = f"{WWW}/{path}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def apt():
    index = []
    for number in range(1, 13):
        control = f"""Package: parcel-{number}
Version: 1.0
Architecture: all
Maintainer: nobody <nobody@web.example>
Description: a part of the blob
"""
        tree = f"{DIRECTORY}/tree-{number}"
        os.makedirs(f"{tree}/DEBIAN")
        with open(f"{tree}/DEBIAN/control", "w") as file:
            file.write(control)
        with open(f"{tree}/content", "wb") as file:
            file.write(BLOB[: number * 100_000])
        name = f"parcel-{number}_1.0_all.deb"
        os.makedirs(f"{WWW}/apt", exist_ok=True)
        subprocess.run(
            ["dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, f"{WWW}/apt/{name}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        with open(f"{WWW}/apt/{name}", "rb") as file:
            package = file.read()
        digest = hashlib.sha256(package).hexdigest()
        index.append(f"{control}Filename: ./{name}\nSize: {len(package)}\nSHA256: {digest}\n")
    write("apt/Packages", "\n".join(index).encode())


def pip():
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("parcel.bin", BLOB)
        archive.writestr("parcel-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: parcel\nVersion: 1.0\n")
        archive.writestr(
            "parcel-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("parcel-1.0.dist-info/RECORD", "")
    name, content = "parcel-1.0-py3-none-any.whl", wheel.getvalue()
    write(f"simple/parcel/{name}", content)
    link = f'<!doctype html><a href="{name}#sha256={hashlib.sha256(content).hexdigest()}">{name}</a>'
    write("simple/parcel/index.html", link.encode())


def npm():
    manifest = {"name": "parcel", "version": "1.0.0"}
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w:gz", compresslevel=1) as archive:
        for name, content in [("package.json", json.dumps(manifest).encode()), ("parcel.bin", BLOB)]:
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    content = package.getvalue()
    integrity = base64.b64encode(hashlib.sha512(content).digest()).decode()
    for scheme in "http", "https":
        tarball = f"{scheme}://web.example/{scheme}-npm/parcel-1.0.0.tgz"
        version = manifest | {"dist": {"tarball": tarball, "integrity": f"sha512-{integrity}"}}
        about = {"name": "parcel", "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
        write(f"{scheme}-npm/parcel", json.dumps(about).encode())
        write(f"{scheme}-npm/parcel-1.0.0.tgz", content)


apt()
pip()
npm()
