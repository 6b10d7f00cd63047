"""The testbed's Kubernetes is a real one: versions, authorization, certificates."""

import base64
import ipaddress
import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from testbed.kubernetes.control_plane import ControlPlane
from testbed.kubernetes.files import Files
from testbed.paths import Layout

from .testbed import Testbed

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

NODE = "made-by-hand"


def serving_request(address: str) -> str:
    """A CertificateSigningRequest as a kubelet makes it, as a manifest."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{NODE}"),
        ]
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(names, critical=False)
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    return json.dumps(
        {
            "apiVersion": "certificates.k8s.io/v1",
            "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "made-by-hand-"},
            "spec": {
                "request": base64.b64encode(request).decode(),
                "signerName": "kubernetes.io/kubelet-serving",
                "usages": ["digital signature", "server auth"],
            },
        }
    )


def test_kubectl_and_the_api_server_have_the_same_minor_version(testbed: Testbed) -> None:
    versions = json.loads(testbed.kubectl("version", "--output=json"))

    client, server = versions["clientVersion"], versions["serverVersion"]
    assert client["gitVersion"].startswith("v1.")
    assert (client["major"], client["minor"]) == (server["major"], server["minor"])


def test_kubectl_gets_nodes(testbed: Testbed) -> None:
    assert json.loads(testbed.kubectl("get", "nodes", "--output=json"))["kind"] == "List"


def test_every_namespace_gets_its_service_account_and_the_clusters_ca(testbed: Testbed) -> None:
    testbed.kubectl("get", "serviceaccount/default", "configmap/kube-root-ca.crt")


def test_anonymous_may_not_read_anything(testbed: Testbed) -> None:
    cluster = yaml.safe_load(Path(testbed.environment["KUBECONFIG"]).read_text())["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()

    with pytest.raises(urllib.error.HTTPError) as refusal:
        urllib.request.urlopen(  # noqa: S310
            f"{cluster['server']}/api/v1/nodes", context=ssl.create_default_context(cadata=authority), timeout=10
        )

    with refusal.value as answer:
        assert answer.code == 403
        assert "system:anonymous" in json.load(answer)["message"]


def test_a_kubelets_serving_certificate_is_approved_and_issued_by_the_ca_that_the_api_server_verifies(
    testbed: Testbed,
) -> None:
    name = testbed.kubectl("create", "--filename=-", "--output=name", stdin=serving_request("127.0.0.1")).strip()

    testbed.kubectl("wait", name, "--for=condition=Approved", "--timeout=20s")
    testbed.kubectl("wait", name, "--for=jsonpath={.status.certificate}", "--timeout=20s")

    issued = base64.b64decode(testbed.kubectl("get", name, "--output=jsonpath={.status.certificate}"))
    files = Files(Layout.from_environment().kubernetes)
    authority = x509.load_pem_x509_certificate(files.kubelet_serving_ca.pair.certificate.read_bytes())
    x509.load_pem_x509_certificate(issued).verify_directly_issued_by(authority)
    testbed.kubectl("delete", name)


def test_a_request_for_an_address_elsewhere_is_denied(testbed: Testbed) -> None:
    name = testbed.kubectl("create", "--filename=-", "--output=name", stdin=serving_request("192.0.2.1")).strip()

    testbed.kubectl("wait", name, "--for=condition=Denied", "--timeout=20s")
    testbed.kubectl("delete", name)


def test_a_node_may_make_itself_and_no_other(testbed: Testbed) -> None:
    kubeconfig = ControlPlane(Layout.from_environment()).node_kubeconfig(NODE)

    def create(name: str) -> str:
        node = json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        words = ("kubectl", f"--kubeconfig={kubeconfig}", "create", "--dry-run=server", "--filename=-")
        done = testbed.run(*words, stdin=node, check=False)
        return done.stdout + done.stderr

    assert f"node/{NODE} created" in create(NODE)
    assert "is not allowed to modify node" in create("another")


def test_the_agents_account_may_do_what_a_kubelet_does_and_not_more(testbed: Testbed) -> None:
    kubeconfig = testbed.environment["SLURMLET_TESTBED_NODE_KUBECONFIG"]

    def may(*words: str) -> str:
        return testbed.run("kubectl", f"--kubeconfig={kubeconfig}", "auth", "can-i", *words, check=False).stdout.strip()

    assert may("patch", "pods", "--subresource=status", "--namespace=default") == "yes"
    assert may("create", "nodes") == "yes"
    assert may("create", "pods", "--namespace=default") == "no"
    assert may("approve", "signers.certificates.k8s.io/kubernetes.io/kubelet-serving") == "no"


def test_the_published_ca_verifies_the_api_servers_kubelet_client(testbed: Testbed) -> None:
    published = x509.load_pem_x509_certificate(
        Path(testbed.environment["SLURMLET_TESTBED_KUBELET_CLIENT_CA"]).read_bytes()
    )
    client = Files(Layout.from_environment().kubernetes).kubelet_client

    x509.load_pem_x509_certificate(client.certificate.read_bytes()).verify_directly_issued_by(published)
