# SPDX-License-Identifier: Apache-2.0
"""Servers on loopback for tests of what is fetched: the Hugging Face hub's API, and plain files.

They answer range requests, can break off in the middle of a file, and can send a damaged one.
"""

import contextlib
import hashlib
import http.server
import json
import re
import threading
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".bin", ".th")  # kept in large-file storage, known there by their SHA-256


class FileServer(http.server.ThreadingHTTPServer):
  """Plain files by their path; `breaks` counts down the answers that end in their middle."""

  daemon_threads = True

  def __init__(self, files, handler=None):
    super().__init__(("127.0.0.1", 0), handler or FileHandler)
    self.files, self.breaks, self.damaged, self.ranges = files, 0, False, True
    self.log = []  # (method, path, the range asked for)
    self.url = f"http://127.0.0.1:{self.server_port}"


class FileHandler(http.server.BaseHTTPRequestHandler):
  """Answers GET and HEAD."""

  protocol_version = "HTTP/1.1"

  def log_message(self, *args):
    """Says nothing."""

  def do_HEAD(self):
    self.do_GET()

  def do_GET(self):
    self.path = unquote(urlsplit(self.path).path)
    self.server.log.append((self.command, self.path, self.headers.get("Range")))
    self.answer()

  def answer(self):
    if self.path in self.server.files:
      self.send_file(self.server.files[self.path], {})
    else:
      self.send_text(404, "")

  def send_text(self, status, text, headers=()):
    body = text.encode()
    self.send_response(status)
    for name, value in {**dict(headers), "Content-Length": str(len(body))}.items():
      self.send_header(name, value)
    self.end_headers()
    if self.command == "GET":
      self.wfile.write(body)

  def send_file(self, content, headers):
    server, wanted = self.server, self.headers.get("Range")
    if server.damaged:
      content = content[:-1] + bytes([content[-1] ^ 1])
    start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
    if start >= len(content) > 0:
      return self.send_text(416, "")
    self.send_response(206 if start else 200)
    if start:
      headers |= {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
    if server.ranges:
      headers |= {"Accept-Ranges": "bytes"}
    for name, value in {**headers, "Content-Length": str(len(content) - start)}.items():
      self.send_header(name, value)
    self.end_headers()
    if self.command == "HEAD":
      return None
    body = content[start:]
    if server.breaks and len(body) > 1000:
      server.breaks -= 1
      self.wfile.write(body[: len(body) // 2])
      self.close_connection = True
      return self.wfile.flush()
    return self.wfile.write(body)


class HubServer(FileServer):
  """The hub's API for one repository of one commit, with what its own library asks for."""

  COMMIT = "c0ffee" * 6 + "c0de"

  def __init__(self, name, files):
    super().__init__({}, HubHandler)
    self.name, self.commit, self.repository = name, self.COMMIT, files
    self.elsewhere = f"http://localhost:{self.server_port}/large"  # another host, as theirs is


class HubHandler(FileHandler):
  """`/api/models/NAME/...` and `/NAME/resolve/...`; large files are redirected to `/large/`."""

  def answer(self):
    server = self.server
    if found := re.fullmatch(r"/large/(\w+)", self.path):
      by_hash = {hashlib.sha256(file).hexdigest(): file for file in server.repository.values()}
      return self.send_file(by_hash[found[1]], {})
    api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?/?", self.path)
    file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self.path)
    name, revision = (api[1], api[3]) if api else (file[1], file[2]) if file else (None, None)
    if name is None:
      return super().answer()
    if name != server.name:
      return self.refuse("RepoNotFound")
    if revision not in (None, "main", "v1", server.commit):
      return self.refuse("RevisionNotFound")
    if api:
      return self.send_json(self.tree() if api[2] == "tree" else self.about())
    if file[3] not in server.repository:
      return self.refuse("EntryNotFound")
    content = server.repository[file[3]]
    commit = {"X-Repo-Commit": server.commit}
    if not file[3].endswith(LARGE):
      return self.send_file(content, commit | {"ETag": f'"{git_hash(content)}"'})
    sha = hashlib.sha256(content).hexdigest()
    linked = {"X-Linked-Etag": f'"{sha}"', "X-Linked-Size": str(len(content))}
    return self.send_text(302, "", commit | linked | {"Location": f"{server.elsewhere}/{sha}"})

  def refuse(self, code):
    self.send_text(404, json.dumps({"error": code}), {"X-Error-Code": code})

  def send_json(self, content):
    self.send_text(200, json.dumps(content), {"Content-Type": "application/json"})

  def about(self):
    siblings = [{"rfilename": name} for name in self.server.repository]
    return {"id": self.server.name, "sha": self.server.commit, "siblings": siblings}

  def tree(self):
    entries = []
    for path, content in self.server.repository.items():
      entry = {"type": "file", "path": path, "size": len(content), "oid": git_hash(content)}
      if path.endswith(LARGE):
        sha = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 130}
      entries.append(entry)
    return entries


def git_hash(content):
  return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def serving(server):
  """Yields the server while it answers."""
  thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
  thread.start()
  try:
    yield server
  finally:
    server.shutdown()
    server.server_close()
    thread.join()


def point_at(monkeypatch, url, cache):
  """Makes `huggingface_hub` ask another server; what it reads when it is imported is past."""
  from huggingface_hub import constants

  monkeypatch.setenv("HF_ENDPOINT", url)
  monkeypatch.setattr(constants, "ENDPOINT", url)
  template = url + "/{repo_id}/resolve/{revision}/{filename}"
  monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
