"""A device plugin as others write them: its devices are berths, each a node of the device /dev/loop-control.

It registers at the kubelet's socket, and again whenever that is a new one, or by the kubelet's plugin registration (`--watched`). Every call is
written to standard output as a line of JSON. Lines on standard input say what changes: `ID healthy`, `ID unhealthy`, `resources`.
"""

import argparse
import json
import os
import pathlib
import queue
import sys
import tempfile
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import json_format
from grpc_tools import protoc

HERE = pathlib.Path(__file__).parent


def compiled():
    """The modules that protoc makes of the files."""
    directory = tempfile.mkdtemp()
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    paths = [f"-I{HERE}", f"-I{HERE.parent / 'csi'}", f"-I{include}", f"--python_out={directory}", f"--grpc_python_out={directory}"]
    if protoc.main(["protoc", *paths, "devices.proto", "resources.proto", "registration.proto"]) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, directory)
    import devices_pb2, devices_pb2_grpc, resources_pb2, resources_pb2_grpc, registration_pb2, registration_pb2_grpc

    return devices_pb2, devices_pb2_grpc, resources_pb2, resources_pb2_grpc, registration_pb2, registration_pb2_grpc


api, rpc, resources, resources_rpc, registration, registration_rpc = compiled()
WRITING = threading.Lock()


def say(what, message=None, **more):
    if message is not None:
        more["request"] = json_format.MessageToDict(message)
    with WRITING:
        print(json.dumps({"call": what, **more}, sort_keys=True), flush=True)


class Berths(rpc.DevicePluginServicer):
    def __init__(self, options):
        self.options, self.health = options, {f"berth-{number}": "Healthy" for number in range(options.berths)}
        self.listeners, self.lock = [], threading.Lock()

    def devices(self):
        places = {"nodes": [{"ID": 0}]}
        return api.ListAndWatchResponse(devices=[{"ID": id, "health": health, "topology": places} for id, health in self.health.items()])

    def change(self, id, health):
        with self.lock:
            self.health[id] = health
            for listener in self.listeners:
                listener.put(self.devices())

    def GetDevicePluginOptions(self, request, context):
        return api.DevicePluginOptions(pre_start_required=True, get_preferred_allocation_available=True)

    def ListAndWatch(self, request, context):
        changes = queue.Queue()
        with self.lock:
            self.listeners.append(changes)
            changes.put(self.devices())
        say("ListAndWatch")
        while context.is_active():
            try:
                yield changes.get(timeout=1)
            except queue.Empty:
                pass

    def GetPreferredAllocation(self, request, context):
        say("GetPreferredAllocation", request)
        prefer = lambda asked: {"deviceIDs": sorted(asked.available_deviceIDs, reverse=True)[: asked.allocation_size]}
        return api.PreferredAllocationResponse(container_responses=[prefer(asked) for asked in request.container_requests])

    def Allocate(self, request, context):
        say("Allocate", request)
        answer = api.AllocateResponse()
        for asked in request.container_requests:
            ids = sorted(asked.devices_ids)
            if len(ids) > 2:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no ship has more than two berths")
            devices = [{"container_path": f"/dev/{id}", "host_path": self.options.device, "permissions": "rw"} for id in ids]
            mount = {"container_path": "/harbour", "host_path": str(HERE), "read_only": True}
            named = [{"name": f"{self.options.resource}={id}"} for id in ids] if self.options.cdi else []
            answer.container_responses.add(envs={"BERTHS": ",".join(ids)}, devices=devices, mounts=[mount], cdi_devices=named)
        return answer

    def write_cdi(self):
        """The devices as the Container Device Interface has them: what is in the file reaches containers with the names."""
        def hook(name):
            line = f"echo {name} >> {self.options.kubelet}/hooks"
            return {"hookName": name, "path": "/bin/sh", "args": ["sh", "-c", line], "env": ["PATH=/bin"], "timeout": 30}

        edits = {"hooks": [hook("createRuntime"), hook("createContainer"), hook("poststop")], "additionalGids": [4242]}
        devices = [{"name": id, "containerEdits": {"env": [f"CRANE_OF_{id[-1]}=yes"], **edits}} for id in self.health]
        spec = {"cdiVersion": "0.6.0", "kind": self.options.resource, "devices": devices}
        path = pathlib.Path(self.options.cdi)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(spec))

    def PreStartContainer(self, request, context):
        say("PreStartContainer", request)
        return api.PreStartContainerResponse()


class Watched(registration_rpc.RegistrationServicer):
    def __init__(self, options):
        self.options = options

    def GetInfo(self, request, context):
        return registration.PluginInfo(type="DevicePlugin", name=self.options.resource, supported_versions=["v1beta1"])

    def NotifyRegistrationStatus(self, request, context):
        say("NotifyRegistrationStatus", request)
        return registration.RegistrationStatusResponse()


def serve(berths, socket, watched=None):
    socket.unlink(missing_ok=True)
    server = grpc.server(futures.ThreadPoolExecutor(16))
    rpc.add_DevicePluginServicer_to_server(berths, server)
    if watched:
        registration_rpc.add_RegistrationServicer_to_server(watched, server)
    server.add_insecure_port(f"unix://{socket}")
    server.start()
    return server


def identity(path):
    """Of a file: its number alone may be that of the one before, which is free when that is gone."""
    try:
        found = os.stat(path)
        return found.st_ino, found.st_ctime_ns
    except FileNotFoundError:
        return None


def register(options, version="v1beta1", resource=None):
    with grpc.insecure_channel(f"unix://{options.kubelet}/device-plugins/kubelet.sock") as channel:
        request = api.RegisterRequest(version=version, endpoint="berths.sock", resource_name=resource or options.resource)
        try:
            rpc.RegistrationStub(channel).Register(request, wait_for_ready=True, timeout=60)
            say("registered")
        except grpc.RpcError as error:
            say("refused", why=error.details())


def follow_kubelet(options, berths):
    """Serves and registers anew whenever the kubelet has a new socket."""
    directory = pathlib.Path(options.kubelet) / "device-plugins"
    known, server = None, None
    while True:
        current = identity(directory / "kubelet.sock")
        if current and current != known:
            known = current
            if server:
                server.stop(None).wait()
            server = serve(berths, directory / "berths.sock")
            register(options)
        time.sleep(0.1)


def show_resources(options):
    with grpc.insecure_channel(f"unix://{options.kubelet}/pod-resources/kubelet.sock") as channel:
        lister = resources_rpc.PodResourcesListerStub(channel)
        listed = lister.List(resources.ListPodResourcesRequest(), timeout=30)
        having = [pod for pod in listed.pod_resources if any(container.devices for container in pod.containers)]
        one = having and lister.Get(resources.GetPodResourcesRequest(pod_name=having[0].name, pod_namespace=having[0].namespace))
        allocatable = lister.GetAllocatableResources(resources.AllocatableResourcesRequest(), timeout=30)
        say("resources", pods=[json_format.MessageToDict(pod) for pod in having], one=one and json_format.MessageToDict(one),
            allocatable=json_format.MessageToDict(allocatable))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubelet", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--resource", default="example.com/berth")
    parser.add_argument("--berths", type=int, default=3)
    parser.add_argument("--watched", action="store_true")
    parser.add_argument("--cdi", help="a file of the Container Device Interface, which is written")
    options = parser.parse_args()
    berths = Berths(options)
    if options.cdi:
        berths.write_cdi()
    if options.watched:
        socket = pathlib.Path(options.kubelet) / "plugins_registry" / "berths.sock"
        server = serve(berths, socket, Watched(options))
    else:
        threading.Thread(target=follow_kubelet, args=(options, berths), daemon=True).start()
    say("serving")
    for line in sys.stdin:
        match line.split():
            case ["resources"]:
                show_resources(options)
            case ["register", version, resource]:
                register(options, version, resource)
            case [id, health]:
                berths.change(id, health.capitalize())


main()
