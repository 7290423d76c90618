"""A driver of claimed devices as others write them: its devices are cranes, each a node of the device /dev/loop-control.

It publishes a ResourceSlice, makes itself known by a socket in the kubelet's directory, and prepares claims by writing a file of the Container
Device Interface. Every call is written to standard output as a line of JSON. Lines on standard input: `fail`, `work`,
and how all cranes are: `sick`, `well`.
"""

import argparse
import json
import pathlib
import queue
import sys
import tempfile
import threading
from concurrent import futures

import grpc
from google.protobuf import json_format
from grpc_tools import protoc
from kubernetes import client, config

HERE = pathlib.Path(__file__).parent
NAME = "cranes.example.com"


def compiled():
    """The modules that protoc makes of the files."""
    directory = tempfile.mkdtemp()
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    paths = [f"-I{HERE}", f"-I{HERE.parent / 'csi'}", f"-I{include}", f"--python_out={directory}", f"--grpc_python_out={directory}"]
    if protoc.main(["protoc", *paths, "dra.proto", "health.proto", "registration.proto"]) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, directory)
    import dra_pb2, dra_pb2_grpc, health_pb2, health_pb2_grpc, registration_pb2, registration_pb2_grpc

    return dra_pb2, dra_pb2_grpc, health_pb2, health_pb2_grpc, registration_pb2, registration_pb2_grpc


api, rpc, health, health_rpc, registration, registration_rpc = compiled()
WRITING = threading.Lock()


def say(what, message=None, **more):
    if message is not None:
        more["request"] = json_format.MessageToDict(message)
    with WRITING:
        print(json.dumps({"call": what, **more}, sort_keys=True), flush=True)


class Driver(rpc.DRAPluginServicer):
    def __init__(self, options):
        self.options, self.fails = options, False

    def spec(self, uid):
        return pathlib.Path("/var/run/cdi") / f"{self.options.vendor}-{uid}.json"

    def prepare(self, claim):
        if self.fails:
            return api.NodePrepareResourceResponse(error="the cranes are on strike")
        found = client.CustomObjectsApi().get_namespaced_custom_object("resource.k8s.io", "v1", claim.namespace, "resourceclaims", claim.name)
        answer, devices = api.NodePrepareResourceResponse(), []
        for result in found["status"]["allocation"]["devices"]["results"]:
            name = f"{claim.uid}-{result['device']}"
            edits = {"env": [f"CRANE={result['device']}"], "deviceNodes": [{"path": "/dev/crane", "hostPath": self.options.device, "permissions": "rw"}],
                     "mounts": [{"hostPath": str(HERE), "containerPath": "/crane", "options": ["ro", "bind"]}]}
            devices.append({"name": name, "containerEdits": edits})
            ids = [f"{self.options.vendor}/crane={name}"]
            answer.devices.add(request_names=[result["request"]], pool_name=result["pool"], device_name=result["device"], cdi_device_ids=ids)
        spec = self.spec(claim.uid)
        spec.parent.mkdir(exist_ok=True)
        spec.write_text(json.dumps({"cdiVersion": "0.6.0", "kind": f"{self.options.vendor}/crane", "devices": devices}))
        return answer

    def NodePrepareResources(self, request, context):
        say("NodePrepareResources", request)
        return api.NodePrepareResourcesResponse(claims={claim.uid: self.prepare(claim) for claim in request.claims})

    def NodeUnprepareResources(self, request, context):
        say("NodeUnprepareResources", request)
        for claim in request.claims:
            self.spec(claim.uid).unlink(missing_ok=True)
        return api.NodeUnprepareResourcesResponse(claims={claim.uid: api.NodeUnprepareResourceResponse() for claim in request.claims})


class Health(health_rpc.DRAResourceHealthServicer):
    def __init__(self, options):
        self.options, self.told, self.sick = options, queue.Queue(), False

    def found(self):
        status = health.UNHEALTHY if self.sick else health.HEALTHY
        answer = health.NodeWatchResourcesResponse()
        for number in range(self.options.cranes):
            device = health.DeviceIdentifier(pool_name=self.options.node, device_name=f"crane-{number}")
            message = "the rope is worn" if self.sick else ""
            answer.devices.add(device=device, health=status, health_check_timeout_seconds=600, message=message)
        return answer

    def NodeWatchResources(self, request, context):
        say("NodeWatchResources", request)
        while context.is_active():
            yield self.found()
            self.told.get()


class Watched(registration_rpc.RegistrationServicer):
    def GetInfo(self, request, context):
        return registration.PluginInfo(type="DRAPlugin", name=NAME, supported_versions=["v1.DRAPlugin"])

    def NotifyRegistrationStatus(self, request, context):
        say("registered", request)
        return registration.RegistrationStatusResponse()


def publish(node, cranes):
    devices = [{"name": f"crane-{number}", "attributes": {"reach": {"int": number}}, "capacity": {"load": {"value": "10"}}} for number in range(cranes)]
    pool = {"name": node, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": NAME, "nodeName": node, "pool": pool, "devices": devices}
    body = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": f"{node}-cranes"}, "spec": spec}
    client.CustomObjectsApi().create_cluster_custom_object("resource.k8s.io", "v1", "resourceslices", body)


def main():
    parser = argparse.ArgumentParser()
    for name in ["kubelet", "device", "kubeconfig", "node", "vendor"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--cranes", type=int, default=2)
    options = parser.parse_args()
    config.load_kube_config(options.kubeconfig)
    publish(options.node, options.cranes)
    driver = Driver(options)
    server = grpc.server(futures.ThreadPoolExecutor(16))
    rpc.add_DRAPluginServicer_to_server(driver, server)
    cranes = Health(options)
    health_rpc.add_DRAResourceHealthServicer_to_server(cranes, server)
    registration_rpc.add_RegistrationServicer_to_server(Watched(), server)
    server.add_insecure_port(f"unix://{options.kubelet}/plugins_registry/cranes.sock")
    server.start()
    say("serving")
    for line in sys.stdin:
        driver.fails = line.strip() == "fail"
        cranes.sick = line.strip() == "sick"
        cranes.told.put(None)
        say(line.strip())


main()
