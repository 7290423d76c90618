"""Brings the lines that this node's containers print to Redis, one hash for each container.

The kubelet keeps them as NAMESPACE_POD_UID/CONTAINER/RESTARTS.log, with time, stream and a mark for whole lines before each. A line's field in the hash is
its file and position. So whatever was read before, and is read again after a restart, lands where it is already.
"""
import glob
import os
import signal
import threading

import redis

NODE, ROOT = os.environ["NODE"], "/var/log/pods"
positions = {}  # By file (its inode, which stays when the kubelet renames it).

end = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: end.set())
client = redis.Redis("redis", decode_responses=True, socket_timeout=5)


def collect(path):
    """Sends what is new in a file. Its position moves after Redis has it."""
    pod, container = path[len(ROOT) + 1:].split("/")[:2]
    namespace, name = pod.split("_")[:2]
    with open(path, "rb") as file:
        inode = os.fstat(file.fileno()).st_ino
        file.seek(positions.get(inode, 0))
        lines = {}
        while (line := file.readline()).endswith(b"\n"):  # Half a line waits for its other half.
            stream, _, text = line.decode(errors="replace").rstrip("\n").split(" ", 3)[1:]
            lines[f"{NODE}:{inode}:{file.tell():012}"] = f"{stream} {text}"
            positions_after = file.tell()
    if lines:
        client.hset(f"log:{namespace}/{name}/{container}", mapping=lines)
        positions[inode] = positions_after


while not end.wait(0.5):
    for path in sorted(glob.glob(f"{ROOT}/*/*/*.log")):
        try:
            collect(path)
        except FileNotFoundError:
            pass  # The pod has gone in between.
        except redis.exceptions.RedisError as error:
            print(f"later: {error}")
            break
