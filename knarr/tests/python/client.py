"""What scripts do with the official Python client. `RESTART` on standard output asks the test to kill the server and to start
it again; a line on standard input says that this is done."""

import asyncio
import inspect
import json
import os
import queue
import sys
import threading
import unittest

import urllib3
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.aio import client as aio_client
from kubernetes.aio import config as aio_config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.informer import SharedInformer
from kubernetes.stream import portforward, stream

BUSYBOX = "127.0.0.1:5000/busybox:1.36"
NGINX = "127.0.0.1:5000/nginx:1.27"
PATIENCE = 50
NAMESPACE = "python"


def restart():
    # Another line is under way.
    print("\nRESTART", flush=True)
    sys.stdin.readline()


def config_map(name, data=None, **metadata):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, **metadata), data=data or {"key": "value"})


def pod(name, image=BUSYBOX, **container):
    main = client.V1Container(name="main", image=image, **container)
    spec = client.V1PodSpec(containers=[main], termination_grace_period_seconds=0)
    return client.V1Pod(metadata=client.V1ObjectMeta(name=name, labels={"app": name}), spec=spec)


class ClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        config.load_kube_config()
        cls.core = client.CoreV1Api()
        try:
            cls.core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
        except ApiException as error:
            if error.status != 409:
                raise
        # A pod may be made once the namespace has its account.
        seen = watch.Watch().stream(cls.core.list_namespaced_service_account, NAMESPACE, timeout_seconds=PATIENCE)
        next(event for event in seen if event["object"].metadata.name == "default")

    def refused(self, code, reason, call, *arguments, **options):
        """The Status of a call that fails."""
        with self.assertRaises(ApiException) as raised:
            call(*arguments, **options)
        status = json.loads(raised.exception.body)
        self.assertEqual((raised.exception.status, status["kind"], status["reason"]), (code, "Status", reason))
        return status

    def running(self, name):
        """Waits until a pod is ready."""
        field = f"metadata.name={name}"
        for event in watch.Watch().stream(self.core.list_namespaced_pod, NAMESPACE, field_selector=field, timeout_seconds=PATIENCE):
            conditions = event["object"].status.conditions or []
            if any(c.type == "Ready" and c.status == "True" for c in conditions):
                return event["object"]
        self.fail(f"pod {name} is not ready")


class Objects(ClientTest):
    def test_verbs(self):
        core = self.core
        made = core.create_namespaced_config_map(NAMESPACE, config_map("verbs", labels={"of": "verbs"}))
        self.assertEqual(core.read_namespaced_config_map("verbs", NAMESPACE).to_dict(), made.to_dict())
        made.data = {"key": "replaced"}
        replaced = core.replace_namespaced_config_map("verbs", NAMESPACE, made)
        self.assertEqual(replaced.data, {"key": "replaced"})
        status = self.refused(409, "Conflict", core.replace_namespaced_config_map, "verbs", NAMESPACE, made)
        self.assertIn("the object has been modified", status["message"])
        dry = core.create_namespaced_config_map(NAMESPACE, config_map("dry"), dry_run="All")
        self.assertIsNotNone(dry.metadata.uid)
        self.refused(404, "NotFound", core.read_namespaced_config_map, "dry", NAMESPACE)
        listed = core.list_namespaced_config_map(NAMESPACE, label_selector="of in (verbs)")
        self.assertEqual([m.metadata.name for m in listed.items], ["verbs"])
        of_another = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another"))
        self.refused(409, "Conflict", core.delete_namespaced_config_map, "verbs", NAMESPACE, body=of_another)
        options = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid=made.metadata.uid))
        deleted = core.delete_namespaced_config_map("verbs", NAMESPACE, body=options)
        self.assertEqual((deleted.status, deleted.details.name, deleted.details.uid), ("Success", "verbs", made.metadata.uid))
        for name in ["a", "b"]:
            core.create_namespaced_config_map(NAMESPACE, config_map(name, labels={"of": "verbs"}))
        core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="of=verbs")
        self.assertEqual(core.list_namespaced_config_map(NAMESPACE, label_selector="of=verbs").items, [])

    def test_errors(self):
        core = self.core
        core.create_namespaced_config_map(NAMESPACE, config_map("twice"))
        status = self.refused(409, "AlreadyExists", core.create_namespaced_config_map, NAMESPACE, config_map("twice"))
        self.assertEqual(status["details"], {"name": "twice", "kind": "configmaps"})
        status = self.refused(404, "NotFound", core.read_namespaced_pod, "nobody", NAMESPACE)
        self.assertEqual(status["message"], 'pods "nobody" not found')
        status = self.refused(422, "Invalid", core.create_namespaced_config_map, NAMESPACE, config_map("Not_A_Name"))
        self.assertEqual([(c["reason"], c["field"]) for c in status["details"]["causes"]], [("FieldValueInvalid", "metadata.name")])
        self.refused(400, "BadRequest", core.list_namespaced_pod, NAMESPACE, label_selector="a in b")
        self.refused(400, "BadRequest", core.create_namespaced_config_map, NAMESPACE, {"metadata": {"name": "x"}, "data": {"a": 1}})
        unknown = {"metadata": {"name": "x"}, "dada": {}}
        self.refused(400, "BadRequest", core.create_namespaced_config_map, NAMESPACE, unknown, field_validation="Strict")
        self.refused(404, "NotFound", core.create_namespaced_config_map, "no-such-namespace", config_map("x"))
        anybody = client.ApiClient()
        anybody.set_default_header("Impersonate-User", "anybody")
        status = self.refused(403, "Forbidden", client.CoreV1Api(anybody).list_namespaced_secret, NAMESPACE)
        self.assertIn('User "anybody" cannot list resource "secrets" in API group "" in the namespace "python"', status["message"])

    def test_patches(self):
        apps = client.AppsV1Api()
        template = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(labels={"app": "p"}), spec=pod("p").spec)
        template.spec.containers[0].env = [client.V1EnvVar(name="A", value="1")]
        spec = client.V1DeploymentSpec(replicas=0, selector=client.V1LabelSelector(match_labels={"app": "p"}), template=template)
        apps.create_namespaced_deployment(NAMESPACE, client.V1Deployment(metadata=client.V1ObjectMeta(name="p"), spec=spec))

        def env_after(body, **options):
            patched = apps.patch_namespaced_deployment("p", NAMESPACE, body, **options)
            return [(e.name, e.value) for e in patched.spec.template.spec.containers[0].env or []]

        def of_main(env):
            return {"spec": {"template": {"spec": {"containers": [{"name": "main", "env": env}]}}}}

        # The client's own choice: strategic for objects, a JSON patch for lists.
        self.assertEqual(sorted(env_after(of_main([{"name": "B", "value": "2"}]))), [("A", "1"), ("B", "2")])
        path = "/spec/template/spec/containers/0/env"
        self.assertEqual(env_after([{"op": "replace", "path": path, "value": [{"name": "C", "value": "3"}]}]), [("C", "3")])
        merge = of_main([{"name": "D", "value": "4"}])
        merge["spec"]["template"]["spec"]["containers"][0]["image"] = NGINX
        self.assertEqual(env_after(merge, _content_type="application/merge-patch+json"), [("D", "4")])
        test = [{"op": "test", "path": "/spec/replicas", "value": 7}]
        self.refused(422, "Invalid", apps.patch_namespaced_deployment, "p", NAMESPACE, test)
        scale = apps.patch_namespaced_deployment_scale("p", NAMESPACE, {"spec": {"replicas": 1}})
        self.assertEqual((scale.spec.replicas, scale.status.selector), (1, "app=p"))
        apps.delete_namespaced_deployment("p", NAMESPACE, propagation_policy="Foreground")

    def test_server_side_apply(self):
        def apply(manager, value, **options):
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"key": value}}
            return self.core.patch_namespaced_config_map(
                "applied", NAMESPACE, body, field_manager=manager, _content_type="application/apply-patch+yaml", **options)

        self.assertEqual(apply("first", "one").data, {"key": "one"})
        status = self.refused(409, "Conflict", apply, "second", "two")
        self.assertEqual([(c["reason"], c["field"]) for c in status["details"]["causes"]], [("FieldManagerConflict", ".data.key")])
        forced = apply("second", "two", force=True)
        self.assertEqual([(f.manager, f.operation) for f in forced.metadata.managed_fields], [("second", "Apply")])

    def test_pages(self):
        names = [f"page-{number}" for number in range(7)]
        for name in names:
            self.core.create_namespaced_config_map(NAMESPACE, config_map(name, labels={"of": "pages"}))
        seen, left, token, versions = [], [], None, set()
        while token != "":
            page = self.core.list_namespaced_config_map(NAMESPACE, limit=3, _continue=token)
            seen += [m.metadata.name for m in page.items]
            left.append(page.metadata.remaining_item_count)
            versions.add(page.metadata.resource_version)
            token = page.metadata._continue or ""
            # What is made meanwhile is not of this list.
            self.core.create_namespaced_config_map(NAMESPACE, config_map(f"page-0-{len(left)}"))
        everything = self.core.list_namespaced_config_map(NAMESPACE)
        self.assertEqual([name for name in seen if name.startswith("page-")], names)
        self.assertEqual((len(versions), left[-1], len(left) > 2), (1, None, True))
        self.assertEqual(len(everything.items), len(seen) + len(left))
        self.refused(400, "BadRequest", self.core.list_namespaced_config_map, NAMESPACE, limit=3, _continue="nonsense")

    def test_every_list_is_of_the_clients_types(self):
        groups = client.ApisApi().get_api_versions().groups
        served = {version.group_version for group in groups for version in group.versions}
        served.update(client.CoreApi().get_api_versions().versions)
        # The client insists on an eventTime, which events of older recorders have on no cluster.
        lenient = client.Configuration.get_default_copy()
        lenient.client_side_validation = False
        events = client.ApiClient(lenient)
        called = 0
        for name, api in inspect.getmembers(client, inspect.isclass):
            if not name.endswith("Api") or name == "CustomObjectsApi":
                continue
            for method, function in inspect.getmembers(api(events if name == "EventsV1Api" else None), inspect.ismethod):
                arguments = list(inspect.signature(function).parameters)
                if method.startswith("list_") and not method.endswith("_with_http_info") and arguments == ["kwargs"]:
                    try:
                        answer = function()
                        self.assertIn(answer.api_version, served, method)
                        called += 1
                    except ApiException as error:
                        self.assertEqual(error.status, 404, method)
        self.assertGreater(called, 40)

    def test_manifests(self):
        documents = [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}},
            {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"},
             "spec": {"schedule": "@daily", "suspend": True, "jobTemplate": {"spec": {"template": {"spec": {
                 "restartPolicy": "Never", "containers": [{"name": "main", "image": BUSYBOX}]}}}}}},
        ]
        made = utils.create_from_yaml(client.ApiClient(), yaml_objects=documents, namespace=NAMESPACE)
        self.assertEqual([objects[0].metadata.name for objects in made], ["s", "c"])
        with self.assertRaises(utils.FailToCreateError):
            utils.create_from_yaml(client.ApiClient(), yaml_objects=documents[:1], namespace=NAMESPACE)


class Containers(ClientTest):
    def test_commands_logs_and_ports(self):
        core = self.core
        echo = "echo started; while read -r l; do echo got $l; done; exec sleep 1000"
        core.create_namespaced_pod(NAMESPACE, pod("shell", command=["sh", "-c", echo], stdin=True))
        core.create_namespaced_pod(NAMESPACE, pod("web", image=NGINX))
        self.running("shell")
        self.running("web")
        run = {"stderr": True, "stdin": False, "stdout": True, "tty": False}
        exec_, script = core.connect_get_namespaced_pod_exec, "echo out; echo err >&2; read -r l; echo $l; exit 3"
        self.assertEqual(stream(exec_, "shell", NAMESPACE, command=["echo", "a b"], **run), "a b\n")
        shell = stream(exec_, "shell", NAMESPACE, command=["sh", "-c", script], **{**run, "stdin": True}, _preload_content=False)
        shell.write_stdin("through\n")
        shell.run_forever(timeout=PATIENCE)
        self.assertEqual((shell.read_stdout(), shell.read_stderr(), shell.returncode), ("out\nthrough\n", "err\n", 3))
        attached = stream(core.connect_get_namespaced_pod_attach, "shell", NAMESPACE, **{**run, "stdin": True}, _preload_content=False)
        attached.write_stdin("hello\n")
        self.assertEqual(attached.readline_stdout(timeout=PATIENCE), "got hello")
        attached.close()
        log = core.read_namespaced_pod_log("shell", NAMESPACE, limit_bytes=7, _preload_content=False)
        self.assertEqual(log.data, b"started")
        followed = watch.Watch()
        lines = followed.stream(core.read_namespaced_pod_log, "shell", NAMESPACE)
        self.assertEqual([next(lines), next(lines)], ["started", "got hello"])
        followed.stop()
        ports = portforward(core.connect_get_namespaced_pod_portforward, "web", NAMESPACE, ports="80")
        ports.socket(80).sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while part := ports.socket(80).recv(1024):
            answer += part
        self.assertIn(b"Welcome to nginx!", answer)
        self.assertIsNone(ports.error(80))
        answer = core.connect_get_namespaced_pod_proxy_with_path("web:80", NAMESPACE, "index.html")
        self.assertIn("Welcome to nginx!", answer)
        eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="web"))
        options = {"resource_version": core.list_namespaced_pod(NAMESPACE).metadata.resource_version, "timeout_seconds": PATIENCE}
        core.create_namespaced_pod_eviction("web", NAMESPACE, eviction)
        for event in watch.Watch().stream(core.list_namespaced_pod, NAMESPACE, label_selector="app=web", **options):
            if event["type"] == "DELETED":
                return
        self.fail("the evicted pod is still there")


class Dynamic(ClientTest):
    def test_a_client_over_discovery(self):
        found = dynamic.DynamicClient(client.ApiClient(), cache_file=os.path.abspath("discovery.json"))
        maps = found.resources.get(api_version="v1", kind="ConfigMap")
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dynamic"}, "data": {"key": "one"}}
        maps.create(body=body, namespace=NAMESPACE)
        with self.assertRaises(ConflictError):
            maps.create(body=body, namespace=NAMESPACE)
        body["data"] = {"key": "two"}
        patched = maps.patch(body=body, namespace=NAMESPACE, content_type="application/merge-patch+json")
        self.assertEqual(patched.data.key, "two")
        body["data"] = {"other": "three"}
        applied = maps.server_side_apply(body=body, name="dynamic", namespace=NAMESPACE, field_manager="dynamic")
        self.assertEqual(applied.data.to_dict(), {"key": "two", "other": "three"})
        version = maps.get(namespace=NAMESPACE).metadata.resourceVersion
        maps.delete(name="dynamic", namespace=NAMESPACE)
        events = maps.watch(namespace=NAMESPACE, resource_version=version, timeout=PATIENCE)
        self.assertEqual(next((e["type"], e["object"].metadata.name) for e in events), ("DELETED", "dynamic"))
        with self.assertRaises(NotFoundError):
            maps.get(name="dynamic", namespace=NAMESPACE)
        deployments = found.resources.get(api_version="apps/v1", kind="Deployment")
        self.assertIn("scale", deployments.subresources)
        self.assertGreater(len(found.resources.search(kind="Event")), 1)
        self.assertEqual(found.version["kubernetes"]["minor"], "36")


class Restarts(ClientTest):
    """Watches and informers over the server's death. Writes go on as soon as it serves again."""

    def write(self, prefix, count):
        for number in range(count):
            name = f"{prefix}-{number}"
            self.core.create_namespaced_config_map(NAMESPACE, config_map(name, labels={"of": "restarts"}))
            if number % 2:
                self.core.delete_namespaced_config_map(name, NAMESPACE)

    def expected(self, prefixes, count):
        for prefix in prefixes:
            for number in range(count):
                yield ("ADDED", f"{prefix}-{number}")
                if number % 2:
                    yield ("DELETED", f"{prefix}-{number}")

    def test_watches(self):
        version = self.core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
        seen, refused = queue.Queue(), threading.Event()

        def follow():
            watching = watch.Watch()
            watching.resource_version = version
            core = client.CoreV1Api(client.ApiClient())
            while True:
                try:
                    options = {"label_selector": "of=restarts", "allow_watch_bookmarks": True}
                    since = watching.resource_version
                    for event in watching.stream(core.list_namespaced_config_map, NAMESPACE, resource_version=since, **options):
                        if event["type"] != "BOOKMARK":
                            seen.put((event["type"], event["object"].metadata.name))
                except (urllib3.exceptions.HTTPError, OSError):
                    refused.wait(0.05)

        threading.Thread(target=follow, daemon=True).start()
        prefixes = []
        for number in range(3):
            prefixes.append(f"round-{number}")
            self.write(prefixes[-1], 6)
            restart()
        prefixes.append("last")
        self.write("last", 6)
        expected = list(self.expected(prefixes, 6))
        self.assertEqual([seen.get(timeout=PATIENCE) for _ in expected], expected)

    def test_informers(self):
        informer = SharedInformer(client.CoreV1Api(client.ApiClient()).list_namespaced_config_map, namespace=NAMESPACE)
        changed = threading.Semaphore(0)
        for kind in ["ADDED", "MODIFIED", "DELETED"]:
            informer.add_event_handler(kind, lambda _: changed.release())
        informer.start()
        for number in range(2):
            self.write(f"informer-{number}", 4)
            restart()
        self.write("informer-2", 4)
        # Everything that was written before this one has arrived when this one has.
        self.core.create_namespaced_config_map(NAMESPACE, config_map("informer-end"))
        while informer.cache.get_by_key(f"{NAMESPACE}/informer-end") is None:
            self.assertTrue(changed.acquire(timeout=PATIENCE))
        listed = {m.metadata.name: m.metadata.resource_version for m in self.core.list_namespaced_config_map(NAMESPACE).items}
        self.assertEqual({m.metadata.name: m.metadata.resource_version for m in informer.cache.list()}, listed)


class Asynchronous(ClientTest):
    def test_reads_and_watches(self):
        async def run():
            await aio_config.load_kube_config()
            async with aio_client.ApiClient() as api:
                core = aio_client.CoreV1Api(api)
                await core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": "aio"}, "data": {"a": "b"}})
                reads = [core.read_namespaced_config_map("aio", NAMESPACE) for _ in range(20)]
                return {read.data["a"] for read in await asyncio.gather(*reads)}

        self.assertEqual(asyncio.run(run()), {"b"})


if __name__ == "__main__":
    # Standard error is for what libraries say while the server is away.
    unittest.main(testRunner=unittest.TextTestRunner(stream=sys.stdout, verbosity=2))
