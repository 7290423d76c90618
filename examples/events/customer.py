"""Orders fifty sails, of which there are thirty, and ten oars. A request without an answer is sent again: its id makes it the same order."""
import http.client
import time

orders = [(f"sail-{n}", "sail") for n in range(50)] + [(f"oar-{n}", "oar") for n in range(10)]
for order, item in orders:
    while True:
        connection = http.client.HTTPConnection("orders", timeout=5)
        try:
            connection.request("POST", f"/orders?id={order}&item={item}&quantity=1")
            if connection.getresponse().status == 202:
                break
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
print(f"{len(orders)} orders were taken")
