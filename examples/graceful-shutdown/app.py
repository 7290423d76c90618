"""A WSGI application whose answers take a while, as those of many do."""
import os
import time


def application(environ, start_response):
    time.sleep(float(os.environ.get("SECONDS_PER_REQUEST", "0.5")))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"answered by {os.environ['HOSTNAME']}\n".encode()]
