"""An issuer of tokens: what is in the directory `DOCUMENTS`, over TLS with the certificate there. `LISTENING` is printed when it listens."""

import functools
import os
import ssl
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

directory = os.environ["DOCUMENTS"]
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(f"{directory}/issuer.crt", f"{directory}/issuer.key")
server = ThreadingHTTPServer(("127.0.0.1", 9446), functools.partial(SimpleHTTPRequestHandler, directory=f"{directory}/documents"))
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
print("LISTENING", flush=True)
server.serve_forever()
