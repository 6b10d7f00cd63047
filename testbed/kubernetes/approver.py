"""Approves the certificate requests of kubelets on this machine, and denies all others for that signer.

kube-controller-manager signs `kubernetes.io/kubelet-serving` requests but approves none: somebody must know that the
addresses in them are the node's own. Here that is simple: they have to be loopback, or one that our caller named. The
other rules are the signer's:
https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers

Runs as a process of its own: `python -m testbed.kubernetes.approver PORT CA CERTIFICATE KEY [ADDRESS …]`.
"""

import base64
import http.client
import ipaddress
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from testbed.kubernetes.api import Api
from testbed.kubernetes.files import ADMIN
from testbed.kubernetes.pki import Pair

SIGNER = "kubernetes.io/kubelet-serving"
_PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
_NODE_PREFIX = "system:node:"
_TRUSTED_REQUESTERS = ("system:serviceaccount:slurmlet:slurmlet", ADMIN)
_USAGES = ({"digital signature", "server auth"}, {"digital signature", "key encipherment", "server auth"})
_RETRY_SECONDS = 1.0


def objection(spec: dict[str, Any], addresses: Collection[str] = ()) -> str | None:
    """Why the request with this `spec` must not be approved; None when it may be. `addresses` may be in it, too. Pure."""
    try:
        request = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        alternatives = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "it has no subject alternative name"
    except ValueError as error:
        return f"it cannot be parsed: {error}"
    common_name = _only(request.subject, NameOID.COMMON_NAME)
    if common_name is None or not common_name.startswith(_NODE_PREFIX):
        return f"its common name is not {_NODE_PREFIX}NAME"
    if _only(request.subject, NameOID.ORGANIZATION_NAME) != "system:nodes":
        return "its organization is not exactly system:nodes"
    if set(spec.get("usages", ())) not in _USAGES:
        return "its usages are not digital signature, server auth and at most key encipherment"
    if spec.get("username") not in (common_name, *_TRUSTED_REQUESTERS):
        return f"{spec.get('username')} may not ask on behalf of {common_name}"
    return _objection_to_names(alternatives, common_name.removeprefix(_NODE_PREFIX), addresses)


def _objection_to_names(alternatives: x509.SubjectAlternativeName, node: str, addresses: Collection[str]) -> str | None:
    for name in alternatives:
        if isinstance(name, x509.IPAddress):
            if str(name.value) in addresses:
                continue
            if not isinstance(name.value, (ipaddress.IPv4Address, ipaddress.IPv6Address)) or not name.value.is_loopback:
                return f"{name.value} is no loopback address"
        elif isinstance(name, x509.DNSName):
            if name.value not in (node, "localhost"):
                return f"the DNS name {name.value} is neither the node's nor localhost"
        else:
            return f"a {type(name).__name__} alternative name is not for a kubelet"
    return None


def _only(subject: x509.Name, oid: x509.ObjectIdentifier) -> str | None:
    values = [str(attribute.value) for attribute in subject.get_attributes_for_oid(oid)]
    return values[0] if len(values) == 1 else None


def decide(api: Api, request: dict[str, Any], addresses: Collection[str] = ()) -> None:
    """Approve or deny `request` unless that was done; a conflict is left to the event that its winner causes."""
    conditions = request.get("status", {}).get("conditions", [])
    if any(condition["type"] in ("Approved", "Denied") for condition in conditions):
        return
    reason = objection(request["spec"], addresses)
    condition = {
        "type": "Denied" if reason else "Approved",
        "status": "True",
        "reason": "SlurmletTestbed",
        "message": f"Denied: {reason}."
        if reason
        else "A kubelet's serving certificate for an address of this machine.",
    }
    decided = {**request, "status": {**request.get("status", {}), "conditions": [*conditions, condition]}}
    name = request["metadata"]["name"]
    status = api.put(f"{_PATH}/{name}/approval", decided)
    print(f"{name} of {request['spec'].get('username')}: {condition['message']} ({status})", flush=True)


def main(port: str, authority: str, certificate: str, key: str, *addresses: str) -> None:
    """Watch for requests and decide them, for ever; a lost API server is waited for."""
    api = Api(int(port), Path(authority), Pair(Path(certificate), Path(key)))
    while True:
        try:
            for event in api.watch(f"{_PATH}?fieldSelector=spec.signerName%3D{SIGNER.replace('/', '%2F')}"):
                if event["type"] in ("ADDED", "MODIFIED"):
                    decide(api, event["object"], addresses)
        except (OSError, http.client.HTTPException) as error:
            print(f"Trying again in {_RETRY_SECONDS:g} s: {error}", flush=True)
            time.sleep(_RETRY_SECONDS)


if __name__ == "__main__":
    main(*sys.argv[1:])
