"""Twenty clients that ask a service without a pause for so many seconds, and how many requests failed."""
import http.client
import sys
import threading
import time

SERVICE, SECONDS, CLIENTS = sys.argv[1], float(sys.argv[2]), 20
answered, failed = [0] * CLIENTS, [0] * CLIENTS


def client(number):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        connection = http.client.HTTPConnection(SERVICE, timeout=10)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            counts = answered if answer.status == 200 else failed
        except (OSError, http.client.HTTPException):
            counts = failed
        finally:
            connection.close()
        counts[number] += 1


threads = [threading.Thread(target=client, args=[number]) for number in range(CLIENTS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(f"{sum(answered)} answered, {sum(failed)} failed")
sys.exit(sum(failed) > 0)
