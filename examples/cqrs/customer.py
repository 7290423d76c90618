"""Deposits 1 to an account fifty times, then wants to withdraw 80. A request without an answer is sent again, with its id."""
import http.client
import time


def book(booking, amount):
    while True:
        connection = http.client.HTTPConnection("write", timeout=10)
        try:
            connection.request("POST", f"/?id={booking}&account=erik&amount={amount}")
            status = connection.getresponse().status
            if status < 500:
                return status
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.2)


for number in range(50):
    assert book(f"deposit-{number}", 1) in (200, 201)
print("withdrawal:", book("withdrawal", -80))
