"""A storage driver as others write them: volumes are directories of one machine, which it mounts by `mount --bind`.

It answers at a socket of its own and at one for the kubelet's plugin registration, checks what it is asked as the CSI specification wants,
and writes every call to standard output as a line of JSON. `sidecars.py` is its controller.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
from concurrent import futures

import grpc
from google.protobuf import json_format
from grpc_tools import protoc

HERE = pathlib.Path(__file__).parent
TOPOLOGY = "topology.shore.example.com/node"


def compiled():
    """The modules that protoc makes of the two files."""
    directory = tempfile.mkdtemp()
    names = ["csi.proto", "registration.proto"]
    include = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = [f"-I{HERE}", f"-I{include}", f"--python_out={directory}", f"--grpc_python_out={directory}"]
    if protoc.main(["protoc", *arguments, *names]) != 0:
        sys.exit("protoc failed")
    sys.path.insert(0, directory)
    import csi_pb2, csi_pb2_grpc, registration_pb2, registration_pb2_grpc

    return csi_pb2, csi_pb2_grpc, registration_pb2, registration_pb2_grpc


csi, csi_rpc, registration, registration_rpc = compiled()
WRITING = threading.Lock()


def say(what, **more):
    with WRITING:
        print(json.dumps({"call": what, **more}, sort_keys=True), flush=True)


def is_mounted(path):
    with open("/proc/self/mountinfo") as table:
        return any(line.split(" ")[4] == str(path) for line in table)


def bind(source, target, read_only=False):
    if is_mounted(target):
        return
    subprocess.run(["mount", "--bind", source, target], check=True)
    if read_only:
        subprocess.run(["mount", "-o", "remount,bind,ro", target], check=True)


def show_device(image, size, target):
    """Makes a file the device at `target`; gives the name of the loop device."""
    if is_mounted(target):
        return None
    with open(image, "ab") as file:
        file.truncate(size)
    device = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True).stdout.strip()
    pathlib.Path(target).touch()
    subprocess.run(["mount", "--bind", device, target], check=True)
    return device


def unmount(path):
    if is_mounted(path):
        subprocess.run(["umount", path], check=True)


class Told(grpc.ServerInterceptor):
    """Writes every call that changes something, with what came of it. Refuses those of which a file has the name."""

    def __init__(self, refusals):
        self.refusals = pathlib.Path(refusals)

    def intercept_service(self, continuation, details):
        handler = continuation(details)
        name = details.method.rsplit("/", 1)[1]
        if handler is None or name.startswith(("NodeGet", "Probe", "GetPlugin")):
            return handler

        def behaviour(request, context):
            try:
                if (self.refusals / name).exists():
                    context.abort(grpc.StatusCode.INTERNAL, "not now")
                answer = handler.unary_unary(request, context)
                say(name, request=json_format.MessageToDict(request))
                return answer
            except Exception:
                details = context.details() or "?"
                why = details.decode() if isinstance(details, bytes) else details
                say(name, request=json_format.MessageToDict(request), refused=why)
                raise

        return grpc.unary_unary_rpc_method_handler(behaviour, handler.request_deserializer, handler.response_serializer)


class Driver(csi_rpc.IdentityServicer, csi_rpc.ControllerServicer, csi_rpc.NodeServicer):
    def __init__(self, options):
        self.options = options
        self.volumes = pathlib.Path(options.state)
        self.lock = threading.RLock()

    # What is known of a volume, on disk: the driver may be killed.
    def facts(self, volume, context):
        file = self.volumes / f"{volume}.json"
        if not volume:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "volume_id is missing")
        if not file.exists():
            context.abort(grpc.StatusCode.NOT_FOUND, f"no volume {volume}")
        return json.loads(file.read_text())

    def keep(self, volume, facts):
        (self.volumes / volume).mkdir(exist_ok=True)
        (self.volumes / f"{volume}.json").write_text(json.dumps(facts))

    def GetPluginInfo(self, request, context):
        return csi.GetPluginInfoResponse(name=self.options.name, vendor_version="1")

    def Probe(self, request, context):
        return csi.ProbeResponse()

    def CreateVolume(self, request, context):
        if not request.name or not request.volume_capabilities:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "name or volume_capabilities are missing")
        with self.lock:
            size = request.capacity_range.required_bytes
            self.keep(request.name, {"size": size, "nodes": []})
            here = csi.Topology(segments={TOPOLOGY: self.options.node_id})
            volume = csi.Volume(capacity_bytes=size, volume_id=request.name, volume_context={"made": "here"}, accessible_topology=[here])
            return csi.CreateVolumeResponse(volume=volume)

    def DeleteVolume(self, request, context):
        with self.lock:
            file = self.volumes / f"{request.volume_id}.json"
            if file.exists():
                if json.loads(file.read_text())["nodes"]:
                    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the volume is attached")
                subprocess.run(["rm", "-r", self.volumes / request.volume_id], check=True)
                file.unlink()
            return csi.DeleteVolumeResponse()

    def ControllerPublishVolume(self, request, context):
        with self.lock:
            facts = self.facts(request.volume_id, context)
            if request.node_id != self.options.node_id:
                context.abort(grpc.StatusCode.NOT_FOUND, f"no node {request.node_id}")
            if pathlib.Path(f"{self.options.state}-full").exists():
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "all berths are taken")
            facts["nodes"] = [request.node_id]
            self.keep(request.volume_id, facts)
            return csi.ControllerPublishVolumeResponse(publish_context={"berth": request.node_id})

    def ControllerUnpublishVolume(self, request, context):
        with self.lock:
            facts = self.facts(request.volume_id, context)
            facts["nodes"] = []
            if facts.get("staged"):
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the volume is staged: the node still uses it")
            self.keep(request.volume_id, facts)
            return csi.ControllerUnpublishVolumeResponse()

    def ControllerExpandVolume(self, request, context):
        with self.lock:
            facts = self.facts(request.volume_id, context)
            facts["size"] = request.capacity_range.required_bytes
            self.keep(request.volume_id, facts)
            return csi.ControllerExpandVolumeResponse(capacity_bytes=facts["size"], node_expansion_required=True)

    def NodeGetInfo(self, request, context):
        place = csi.Topology(segments={TOPOLOGY: self.options.node_id})
        room = pathlib.Path(f"{self.options.state}-room")
        most = int(room.read_text()) if room.exists() else 7
        return csi.NodeGetInfoResponse(node_id=self.options.node_id, max_volumes_per_node=most, accessible_topology=place)

    def NodeGetCapabilities(self, request, context):
        kinds = csi.NodeServiceCapability.RPC
        all = [kinds.STAGE_UNSTAGE_VOLUME, kinds.EXPAND_VOLUME, kinds.SINGLE_NODE_MULTI_WRITER]
        return csi.NodeGetCapabilitiesResponse(capabilities=[csi.NodeServiceCapability(rpc=kinds(type=kind)) for kind in all])

    def NodeStageVolume(self, request, context):
        with self.lock:
            facts = self.facts(request.volume_id, context)
            if not request.staging_target_path or not request.HasField("volume_capability"):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "staging_target_path or volume_capability is missing")
            if request.publish_context.get("berth") not in facts["nodes"]:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the volume is not attached to this node")
            if request.secrets.get("word") != "aye":
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "the secret is missing")
            if not os.path.isdir(request.staging_target_path):
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "staging_target_path is not a directory")
            if not request.volume_capability.HasField("block"):
                bind(self.volumes / request.volume_id, request.staging_target_path)
            self.keep(request.volume_id, {**facts, "staged": request.staging_target_path})
            return csi.NodeStageVolumeResponse()

    def NodeUnstageVolume(self, request, context):
        with self.lock:
            facts = self.facts(request.volume_id, context)
            unmount(request.staging_target_path)
            facts.pop("staged", None)
            self.keep(request.volume_id, facts)
            return csi.NodeUnstageVolumeResponse()

    def NodePublishVolume(self, request, context):
        with self.lock:
            if not request.target_path or not request.HasField("volume_capability"):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "target_path or volume_capability is missing")
            ephemeral = request.volume_context.get("csi.storage.k8s.io/ephemeral") == "true"
            if ephemeral:
                self.keep(request.volume_id, {"size": 0, "nodes": [], "ephemeral": True})
                pathlib.Path(self.volumes / request.volume_id / "who").write_text(request.volume_context["csi.storage.k8s.io/pod.name"])
                source = self.volumes / request.volume_id
            else:
                facts = self.facts(request.volume_id, context)
                if facts.get("staged") != request.staging_target_path:
                    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the volume is not staged")
                source = request.staging_target_path
            if not os.path.isdir(os.path.dirname(request.target_path)):
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the directory of target_path does not exist")
            if request.volume_capability.HasField("block"):
                device = show_device(self.volumes / request.volume_id / "disk", facts["size"], request.target_path)
                if device:
                    self.keep(request.volume_id, {**facts, "devices": {**facts.get("devices", {}), request.target_path: device}})
                return csi.NodePublishVolumeResponse()
            os.makedirs(request.target_path, exist_ok=True)
            bind(source, request.target_path, request.readonly)
            return csi.NodePublishVolumeResponse()

    def NodeUnpublishVolume(self, request, context):
        with self.lock:
            # What is not there any more is not shown any more: the call may be repeated.
            there = (self.volumes / f"{request.volume_id}.json").exists()
            facts = self.facts(request.volume_id, context) if there else {}
            unmount(request.target_path)
            if os.path.isdir(request.target_path):
                os.rmdir(request.target_path)
            elif os.path.exists(request.target_path):
                os.unlink(request.target_path)
            device = facts.get("devices", {}).pop(request.target_path, None)
            if device:
                subprocess.run(["losetup", "--detach", device], check=True)
                self.keep(request.volume_id, facts)
            if facts.get("ephemeral"):
                subprocess.run(["rm", "-r", self.volumes / request.volume_id, self.volumes / f"{request.volume_id}.json"], check=True)
            return csi.NodeUnpublishVolumeResponse()

    def NodeExpandVolume(self, request, context):
        with self.lock:
            facts = self.facts(request.volume_id, context)
            if not is_mounted(request.volume_path):
                context.abort(grpc.StatusCode.NOT_FOUND, f"no volume at {request.volume_path}")
            if facts["size"] < request.capacity_range.required_bytes:
                context.abort(grpc.StatusCode.OUT_OF_RANGE, "the volume itself is smaller")
            return csi.NodeExpandVolumeResponse(capacity_bytes=facts["size"])


class Registrar(registration_rpc.RegistrationServicer):
    def __init__(self, options):
        self.options = options

    def GetInfo(self, request, context):
        options = self.options
        return registration.PluginInfo(type="CSIPlugin", name=options.name, endpoint=options.socket, supported_versions=["1.0.0"])

    def NotifyRegistrationStatus(self, request, context):
        return registration.RegistrationStatusResponse()


def serve(add, servicer, path):
    pathlib.Path(path).unlink(missing_ok=True)
    told = Told(f"{servicer.options.state}-refuses")
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), interceptors=[told])
    add(servicer, server)
    server.add_insecure_port(f"unix://{path}")
    server.start()
    return server


def add_all(driver, server):
    csi_rpc.add_IdentityServicer_to_server(driver, server)
    csi_rpc.add_ControllerServicer_to_server(driver, server)
    csi_rpc.add_NodeServicer_to_server(driver, server)


def main():
    parser = argparse.ArgumentParser()
    for option in ["name", "node-id", "state", "socket", "registration", "kubeconfig"]:
        parser.add_argument(f"--{option}", required=True)
    options = parser.parse_args()
    for directory in [options.state, os.path.dirname(options.socket), options.registration]:
        os.makedirs(directory, exist_ok=True)
    # Before the first call: a kubelet that knows the socket calls at once.
    say("serving")
    driver = serve(add_all, Driver(options), options.socket)
    import sidecars

    sidecars.start(options, csi, csi_rpc)
    registrar = serve(registration_rpc.add_RegistrationServicer_to_server, Registrar(options), f"{options.registration}/{options.name}-reg.sock")
    driver.wait_for_termination()
    registrar.stop(None)


if __name__ == "__main__":
    main()
