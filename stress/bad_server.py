"""What can go wrong between a server and a disk? A server that does it on purpose, and a COCO small enough for it."""

from __future__ import annotations

import io
import json
import re
import socket
import struct
import threading
import time
import zipfile
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prunecap_lib.datasets.download import CocoFiles
from prunecap_lib.datasets.download.fetch import Archive


class BadServer:
    """Serves ``files`` by path, with ranges; each request first takes a fault from ``faults``.

    A fault is a number of bytes after which the connection ends (negative: is reset), a status, or a word:
    "no-range" (the whole file, whatever was asked), "other-range", "page" (a web page instead of the file), "chunked"
    (no length given), "stalls", "wrong" (a changed byte). ``always`` holds for every request without one of its own.
    """

    def __init__(self, files: dict[str, bytes]):
        self.files, self.faults, self.always = files, [], None
        self.asked: list[tuple[str, str | None]] = []
        self.rate = None  # bytes a second
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.asked.append((self.path, self.headers.get("Range")))
                try:
                    _answer(self, server, server.faults.pop(0) if server.faults else server.always)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # clients that are killed are its business
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def _answer(request: BaseHTTPRequestHandler, server: BadServer, fault) -> None:
    body = server.files.get(request.path)
    if body is None and fault is None:
        fault = 404
    if isinstance(fault, int) and 400 <= fault < 600:
        request.send_response(fault)
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    if fault == "page":
        body = b"<html>please log in</html>"
    if fault == "wrong":
        body = bytes([body[0] ^ 1]) + body[1:]
    start, found = 0, re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
    if found and fault not in ("no-range", "page"):
        start = int(found[1])
    if start >= len(body):
        request.send_response(416)
        request.send_header("Content-Range", f"bytes */{len(body)}")
        request.send_header("Content-Length", "0")
        request.end_headers()
        return
    request.send_response(206 if start else 200)
    if start:
        start -= fault == "other-range"
        request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
    if fault == "chunked":
        request.send_header("Connection", "close")
        request.close_connection = True
    else:
        request.send_header("Content-Length", str(len(body) - start))
    request.end_headers()
    if fault == "stalls":
        request.wfile.write(body[start:start + 10])
        request.wfile.flush()
        time.sleep(2)
        request.close_connection = True
    elif type(fault) is int:
        request.wfile.write(body[start:start + abs(fault)])
        request.wfile.flush()
        request.close_connection = True
        if fault < 0:
            time.sleep(0.01)  # what was sent should arrive first
            # lingering for no time: the line is reset, not closed
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
    else:
        step = len(body) if server.rate is None else max(server.rate // 50, 1)
        for at in range(start, len(body), step):
            request.wfile.write(body[at:at + step])
            if server.rate is not None:
                time.sleep(0.02)


def pack(files: dict[str, bytes], folder: str | None = None) -> bytes:
    """A zip, with an entry for its folder where COCO's has one."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as zip:
        if folder:
            zip.writestr(f"{folder}/", b"")
        for name, data in files.items():
            zip.writestr(name, data)
    return content.getvalue()


def describe(name: str, content: bytes, server: str, **fields) -> Archive:
    """An archive as the tables have them, of a zip that a server has."""
    place = f"{'annotations' if name.startswith('annotations') else 'zips'}/{name}"
    return Archive(name, (f"{server}/{place}",), "https://cocodataset.org/#download", len(content),
                   sha256(content).hexdigest(), **fields)


def serve(files: dict[str, bytes], year: int) -> tuple[BadServer, CocoFiles]:
    """Pack files ("train2017/1.jpg", "annotations/...", "dataset_coco.json") as COCO does, and serve them."""
    server = BadServer({})
    archives = {}
    for folder in (f"train{year}", f"val{year}"):
        members = {name: data for name, data in files.items() if name.startswith(f"{folder}/")}
        archives[folder] = describe(f"{folder}.zip", add(server, f"{folder}.zip", pack(members, folder)), server.url,
                                    unpacked=sum(map(len, members.values())), folder=folder, pictures=len(members),
                                    one_by_one=f"{server.url}/{folder}/")
    for kind, name in (("annotations/", f"annotations_trainval{year}.zip"), ("dataset_coco", "caption_datasets.zip")):
        members = {name: data for name, data in files.items() if name.startswith(kind)}
        archives[kind] = describe(name, add(server, name, pack(members | {"unwanted.json": b"{}"})), server.url,
                                  unpacked=sum(map(len, members.values())), files=tuple(members))
    splits = [entry["split"] for entry in json.loads(files["dataset_coco.json"])["images"]]
    counts = (splits.count("train") + splits.count("restval"), splits.count("val"), splits.count("test"))
    return server, CocoFiles(year, archives["annotations/"], archives[f"train{year}"], archives[f"val{year}"],
                             archives["dataset_coco"], counts)


def add(server: BadServer, name: str, content: bytes) -> bytes:
    server.files[f"/{'annotations' if name.startswith('annotations') else 'zips'}/{name}"] = content
    return content


def tiny_coco(year: int = 2017, train: int = 6, val: int = 3, kilobytes: int = 3) -> dict[str, bytes]:
    """Files of a COCO whose pictures are noise: bytes by path."""
    import random

    noise, files, entries = random.Random(0), {}, []
    for split, numbers in (("train", range(1, train + 1)), ("val", range(train + 1, train + val + 1))):
        name = "{:012d}.jpg" if year == 2017 else f"COCO_{split}{year}_{{:012d}}.jpg"
        images = [{"id": id, "file_name": name.format(id)} for id in numbers]
        captions = [{"id": id, "image_id": id, "caption": f"picture {id}"} for id in numbers]
        files |= {f"{split}{year}/{image['file_name']}": noise.randbytes(1024 * kilobytes) for image in images}
        files[f"annotations/captions_{split}{year}.json"] = _json({"images": images, "annotations": captions})
        files[f"annotations/instances_{split}{year}.json"] = _json(
            {"images": images, "annotations": [], "categories": []})
        for k, id in enumerate(numbers):
            part = "train" if split == "train" else ("restval", "val", "test")[k % 3]
            entries.append({"cocoid": id, "split": part, "filepath": f"{split}2014",
                            "filename": f"COCO_{split}2014_{id:012d}.jpg",
                            "sentences": [{"raw": f"picture {id}"}]})
    return files | {"dataset_coco.json": _json({"images": entries})}


def _json(content: dict) -> bytes:
    return json.dumps(content).encode()
