"""A worker of the standard queue: any worker takes any message, so that many do more; the order is not kept."""
import os
import time

from queueing import GROUP, connect, make_group, take_effect, until_terminated

STREAM, NAME = "payments", os.environ["HOSTNAME"]
# A message that was delivered so many milliseconds ago and not acknowledged belongs to a worker that is gone.
ABANDONED = 2000

end = until_terminated()
client = connect()
make_group(client, STREAM)
while not end.is_set():
    _, messages, _ = client.xautoclaim(STREAM, GROUP, NAME, min_idle_time=ABANDONED, count=10)
    if not messages:
        answer = client.xreadgroup(GROUP, NAME, {STREAM: ">"}, count=1, block=500)
        messages = answer[0][1] if answer else []
    for entry, message in messages:
        time.sleep(float(os.environ["WORK"]))  # What a real worker does.
        take_effect(client, STREAM, entry, message)
        if end.is_set():
            break
print("ended in good order", flush=True)
