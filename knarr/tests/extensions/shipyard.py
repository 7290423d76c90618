"""An operator of ships, as people write them with kopf: it completes and checks them by webhooks, gives each a crew, tells of what
it does by events, and keeps a ship from vanishing until its end is in the log."""

import os

import kopf
from kubernetes import client, config

GROUP = "sea.example.com"


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_):
    print("PID", os.getpid(), flush=True)
    config.load_kube_config()
    directory = os.environ["CERTIFICATES"]
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1",
        port=9443,
        certfile=f"{directory}/hook.crt",
        pkeyfile=f"{directory}/hook.key",
        cafile=f"{directory}/ca.crt",
    )
    settings.admission.managed = f"auto.{GROUP}"


@kopf.on.mutate(GROUP, "ships", operation="CREATE")
def captain(spec, patch, userinfo, **_):
    if "captain" not in spec:
        patch.spec["captain"] = "leif"
    patch.metadata.annotations[f"{GROUP}/ordered-by"] = userinfo["username"]


@kopf.on.validate(GROUP, "ships", operations=["CREATE", "UPDATE"])
def sails(spec, old, warnings, **_):
    if spec["sails"] > 8:
        raise kopf.AdmissionError(f"{spec['sails']} sails are too many", code=422)
    if spec["sails"] > 6:
        warnings.append("a ship with so many sails is slow to turn")
    if old and old["spec"]["captain"] != spec["captain"]:
        raise kopf.AdmissionError("a captain stays", code=403)


@kopf.on.create(GROUP, "ships")
def build(name, namespace, spec, retry, **_):
    if retry == 0:
        raise kopf.TemporaryError("no crew yet", delay=0.1)
    crew = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-crew"}, "data": {"captain": spec["captain"]}}
    kopf.adopt(crew)
    client.CoreV1Api().create_namespaced_config_map(namespace, crew)
    return {"crew": f"{name}-crew", "retries": retry}


@kopf.on.field(GROUP, "ships", field="spec.sails")
def trim(new, patch, body, **_):
    patch.status["sails"] = new
    kopf.info(body, reason="Trimmed", message=f"{new} sails are set")


@kopf.on.delete(GROUP, "ships")
def sink(name, namespace, **_):
    api = client.CoreV1Api()
    api.patch_namespaced_config_map("log", namespace, {"data": {name: "sunk"}})
    kopf.event({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "log", "namespace": namespace}},
               type="Normal", reason="Sunk", message=f"{name} is in the log")


@kopf.on.resume(GROUP, "ships")
def resumed(name, logger, **_):
    logger.info(f"RESUMED {name}")
