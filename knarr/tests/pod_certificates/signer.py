"""A signer of certificates for pods, as anybody may write one: it watches requests, signs with openssl, and writes statuses.

Called with a directory for its files, the name of the signer, and the user as which it asks."""

import base64
import datetime
import subprocess
import sys

from kubernetes import client, config, watch

GROUP, VERSION, PLURAL = "certificates.k8s.io", "v1beta1", "podcertificaterequests"


def openssl(line, **options):
    return subprocess.run(["openssl", *line.split()], check=True, capture_output=True, **options).stdout


def stamp(time):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


def sign(directory, request):
    openssl("x509 -req -inform DER -in /dev/stdin -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -out leaf.crt",
            input=base64.b64decode(request["spec"]["stubPKCS10Request"]), cwd=directory)
    lines = openssl("x509 -in leaf.crt -noout -startdate -enddate", cwd=directory).decode().splitlines()
    start, end = (datetime.datetime.strptime(line.split("=")[1], "%b %d %H:%M:%S %Y %Z") for line in lines)
    with open(f"{directory}/leaf.crt", encoding="ascii") as file:
        chain = file.read()
    condition = {"type": "Issued", "status": "True", "reason": "Signed", "message": "", "lastTransitionTime": stamp(start)}
    refresh = start + datetime.timedelta(hours=12)
    return {"conditions": [condition], "certificateChain": chain, "notBefore": stamp(start), "beginRefreshAt": stamp(refresh),
            "notAfter": stamp(end)}


def main(directory, signer, user):
    config.load_kube_config()
    api = client.ApiClient()
    api.set_default_header("Impersonate-User", user)
    objects = client.CustomObjectsApi(api)
    openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -subj /CN=harbour -days 2",
            cwd=directory)
    print("ready", flush=True)
    selector = f"spec.signerName={signer}"
    for event in watch.Watch().stream(objects.list_cluster_custom_object, GROUP, VERSION, PLURAL, field_selector=selector):
        request = event["object"]
        if event["type"] != "ADDED" or request.get("status", {}).get("conditions"):
            continue
        meta = request["metadata"]
        body = {"status": sign(directory, request)}
        try:
            objects.patch_namespaced_custom_object_status(GROUP, VERSION, meta["namespace"], PLURAL, meta["name"], body)
            print("signed", meta["name"], flush=True)
        except client.ApiException as error:
            print("refused", error.status, error.body, flush=True)


main(*sys.argv[1:])
