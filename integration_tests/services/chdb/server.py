"""A part of ClickHouse's HTTP interface over the engine in this process: usage: server.py DATA_FOLDER PORT.

Statements come as the parameter query, the body, or the first in the former and its data in the latter. Queries run one
after the other.
"""
import gzip
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from chdb import session

engine = session.Session(sys.argv[1])
engine_lock = threading.Lock()
database_name = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.answer(body)

    def answer(self, body):
        parameters = {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}
        statement = "\n".join(s for s in (parameters.pop("query", ""), body.decode()) if s)
        database = parameters.pop("database", "default")
        try:
            text, status = self.run(statement, database, parameters), 200
        except Exception as error:  # the engine has one kind of exception for all
            text, status = str(error).encode(), 500
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def run(self, statement, database, settings):
        if not database_name.match(database):
            raise ValueError("the database is malformed")
        with engine_lock:
            engine.query("USE " + database)
            for name, value in settings.items():
                engine.query(f"SET {name} = {int(value)}")
            return engine.query(statement).bytes() or b""

    def log_message(self, *arguments):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


Server(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
