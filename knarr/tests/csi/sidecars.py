"""The controller's part of a driver, as the external provisioner, attacher and resizer are: it follows the API and asks the driver."""

import datetime
import threading
import time

import grpc
from kubernetes import client, config, watch
from kubernetes.utils.quantity import parse_quantity

PROVISIONER = "volume.kubernetes.io/storage-provisioner"
SELECTED = "volume.kubernetes.io/selected-node"


class Sidecars:
    def __init__(self, options, csi, rpc):
        config.load_kube_config(options.kubeconfig)
        self.name, self.csi, self.core, self.storage = options.name, csi, client.CoreV1Api(), client.StorageV1Api()
        self.driver = rpc.ControllerStub(grpc.insecure_channel(f"unix://{options.socket}"))

    def follow(self, listing, handle):
        """Calls `handle` for every change, from the beginning again when the watch ends or something goes wrong."""
        while True:
            try:
                for event in watch.Watch().stream(listing, timeout_seconds=30):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        handle(event["object"])
            except Exception as error:
                print(f"sidecar: {type(error).__name__}: {error}".replace("\n", " "), flush=True)
                time.sleep(0.2)

    def capability(self, mode):
        kinds = self.csi.VolumeCapability
        if mode == "Block":
            return kinds(block=kinds.BlockVolume(), access_mode=kinds.AccessMode(mode="SINGLE_NODE_WRITER"))
        return kinds(mount=kinds.MountVolume(fs_type="ext4"), access_mode=kinds.AccessMode(mode="SINGLE_NODE_WRITER"))

    def claim(self, claim):
        notes = claim.metadata.annotations or {}
        if notes.get(PROVISIONER) != self.name or claim.metadata.deletion_timestamp:
            return
        if not claim.spec.volume_name:
            return self.provision(claim, notes.get(SELECTED))
        wanted = parse_quantity(claim.spec.resources.requests["storage"])
        volume = self.core.read_persistent_volume(claim.spec.volume_name)
        if claim.status.phase == "Bound" and wanted > parse_quantity(volume.spec.capacity["storage"]):
            self.resize(claim, volume, int(wanted))

    def provision(self, claim, node):
        storage_class = self.storage.read_storage_class(claim.spec.storage_class_name)
        if storage_class.volume_binding_mode == "WaitForFirstConsumer" and not node:
            return
        request = self.csi.CreateVolumeRequest(name=f"pvc-{claim.metadata.uid}", volume_capabilities=[self.capability(claim.spec.volume_mode)])
        request.capacity_range.required_bytes = int(parse_quantity(claim.spec.resources.requests["storage"]))
        made = self.driver.CreateVolume(request).volume
        parameters = storage_class.parameters or {}
        secret = {
            "name": parameters["csi.storage.k8s.io/node-stage-secret-name"],
            "namespace": parameters["csi.storage.k8s.io/node-stage-secret-namespace"],
        }
        segments = made.accessible_topology[0].segments.items()
        terms = [{"matchExpressions": [{"key": key, "operator": "In", "values": [value]} for key, value in segments]}]
        source = {
            "driver": self.name,
            "volumeHandle": made.volume_id,
            "fsType": "ext4",
            "volumeAttributes": dict(made.volume_context),
            "nodeStageSecretRef": secret,
        }
        reference = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": claim.metadata.namespace}
        spec = {
            "capacity": {"storage": str(made.capacity_bytes)},
            "accessModes": claim.spec.access_modes,
            "volumeMode": claim.spec.volume_mode,
            "persistentVolumeReclaimPolicy": storage_class.reclaim_policy,
            "storageClassName": claim.spec.storage_class_name,
            "mountOptions": storage_class.mount_options,
            "claimRef": {**reference, "name": claim.metadata.name, "uid": claim.metadata.uid},
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
            "csi": source,
        }
        metadata = {"name": request.name, "annotations": {"pv.kubernetes.io/provisioned-by": self.name}}
        self.create(lambda: self.core.create_persistent_volume({"metadata": metadata, "spec": spec}))

    def create(self, make):
        try:
            make()
        except client.ApiException as error:
            if error.status != 409:
                raise

    def resize(self, claim, volume, wanted):
        request = self.csi.ControllerExpandVolumeRequest(volume_id=volume.spec.csi.volume_handle)
        request.capacity_range.required_bytes = wanted
        self.driver.ControllerExpandVolume(request)
        self.core.patch_persistent_volume(volume.metadata.name, {"spec": {"capacity": {"storage": str(wanted)}}})
        condition = {"type": "FileSystemResizePending", "status": "True"}
        status = {"status": {"conditions": [condition]}}
        self.core.patch_namespaced_persistent_volume_claim_status(claim.metadata.name, claim.metadata.namespace, status)

    def volume(self, volume):
        ours = (volume.metadata.annotations or {}).get("pv.kubernetes.io/provisioned-by") == self.name
        released = volume.status.phase == "Released" and volume.spec.persistent_volume_reclaim_policy == "Delete"
        if ours and released and not volume.metadata.deletion_timestamp:
            self.driver.DeleteVolume(self.csi.DeleteVolumeRequest(volume_id=volume.spec.csi.volume_handle))
            self.core.delete_persistent_volume(volume.metadata.name)

    def attachment(self, attachment):
        if attachment.spec.attacher != self.name:
            return
        name, mine = attachment.metadata.name, f"external-attacher/{self.name}"
        finalizers = attachment.metadata.finalizers or []
        if attachment.metadata.deletion_timestamp:
            if mine in finalizers:
                self.detach(attachment)
                left = [one for one in finalizers if one != mine]
                self.storage.patch_volume_attachment(name, {"metadata": {"finalizers": left or None}})
        elif mine not in finalizers:
            self.storage.patch_volume_attachment(name, {"metadata": {"finalizers": [*finalizers, mine]}})
        elif not (attachment.status and attachment.status.attached):
            self.attach(attachment)

    def driver_node(self, attachment):
        node = self.storage.read_csi_node(attachment.spec.node_name)
        return next(driver.node_id for driver in node.spec.drivers if driver.name == self.name)

    def attach(self, attachment):
        volume = self.core.read_persistent_volume(attachment.spec.source.persistent_volume_name)
        request = self.csi.ControllerPublishVolumeRequest(volume_id=volume.spec.csi.volume_handle, volume_capability=self.capability(volume.spec.volume_mode))
        request.node_id = self.driver_node(attachment)
        try:
            answer = self.driver.ControllerPublishVolume(request)
        except grpc.RpcError as error:
            now = datetime.datetime.now(datetime.timezone.utc).isoformat()
            failure = {"time": now, "message": error.details(), "errorCode": error.code().value[0]}
            status = {"status": {"attached": False, "attachError": failure}}
            self.storage.patch_volume_attachment_status(attachment.metadata.name, status)
            raise
        status = {"status": {"attached": True, "attachmentMetadata": dict(answer.publish_context)}}
        self.storage.patch_volume_attachment_status(attachment.metadata.name, status)

    def detach(self, attachment):
        volume = self.core.read_persistent_volume(attachment.spec.source.persistent_volume_name)
        request = self.csi.ControllerUnpublishVolumeRequest(volume_id=volume.spec.csi.volume_handle)
        request.node_id = self.driver_node(attachment)
        self.driver.ControllerUnpublishVolume(request)


def start(options, csi, rpc):
    sidecars = Sidecars(options, csi, rpc)
    followed = [
        (sidecars.core.list_persistent_volume_claim_for_all_namespaces, sidecars.claim),
        (sidecars.core.list_persistent_volume, sidecars.volume),
        (sidecars.storage.list_volume_attachment, sidecars.attachment),
    ]
    for listing, handle in followed:
        threading.Thread(target=sidecars.follow, args=(listing, handle), daemon=True).start()
