"""A server that speaks as much of S3 as reading takes: HEAD, GET of ranges, ListObjectsV2."""

import hashlib
import threading
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape


class Objects(BaseHTTPRequestHandler):
    """Answers from `server.objects`: a dict from ``bucket/key`` to bytes."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", head=False, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not head:
            self.wfile.write(body)

    def path_and_query(self):
        parts = urlsplit(self.path)
        return unquote(parts.path).strip("/"), parse_qs(parts.query, keep_blank_values=True)

    def allowed(self):
        return "Credential=key/" in self.headers.get("Authorization", "")

    def about(self, data):
        return {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "Last_Modified": formatdate(0, usegmt=True),
            "Content_Type": "application/octet-stream",
        }

    def do_HEAD(self):
        key, _ = self.path_and_query()
        self.server.asked.append(("HEAD", key, None))
        if not self.allowed():
            self.answer(403, head=True)
        elif key in self.server.objects:
            data = self.server.objects[key]
            self.answer(200, head=True, Content_Length=str(len(data)), **self.about(data))
        else:
            self.answer(404, head=True)

    def do_GET(self):
        key, query = self.path_and_query()
        if not self.allowed():
            self.answer(403, b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>")
        elif "list-type" in query:
            self.server.asked.append(("LIST", key, query))
            self.answer(200, self.listing(key, query), Content_Type="application/xml")
        elif key in self.server.objects:
            data = self.server.objects[key]
            first, last = self.headers["Range"].removeprefix("bytes=").split("-")
            part = data[int(first) : int(last) + 1]
            self.server.asked.append(("GET", key, (int(first), int(last) + 1)))
            whole = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
            self.answer(206, part, Content_Range=whole, **self.about(data))
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code><Message>no</Message></Error>")

    def listing(self, bucket, query):
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        contents, folders = [], {}
        for name, data in sorted(self.server.objects.items()):
            key = name.removeprefix(f"{bucket}/")
            if key == name or not key.startswith(prefix):
                continue
            inside, mark, _ = key[len(prefix) :].partition(delimiter or "\0")
            if mark:
                folders[f"{prefix}{inside}/"] = None
            else:
                contents.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(data)}</Size>"
                    "<LastModified>1970-01-01T00:00:00.000Z</LastModified></Contents>"
                )
        shared = [f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in folders]
        n = len(contents) + len(shared)
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{n}</KeyCount>"
            f"<MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{''.join(contents)}"
            f"{''.join(shared)}</ListBucketResult>"
        ).encode()


@contextmanager
def s3_server(objects):
    """Serve objects; give the server, and the query that URIs need to reach it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Objects)
    server.daemon_threads = True
    server.objects, server.asked = objects, []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        port = server.server_address[1]
        yield server, f"?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
