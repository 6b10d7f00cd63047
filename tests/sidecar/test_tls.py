import ssl
from functools import partial

from sidecar.config import PairSettings
from sidecar.tls import handshake_failure

failure = partial(handshake_failure, believed_by="the sidecar's client_ca_file")
PAIR = PairSettings(certificate_file="/our.crt", key_file="/our.key")


def alert(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


def test_a_server_that_is_not_believed_names_the_authorities() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "unable to get local issuer certificate"
    said = failure(error, hung_up=False, ca_file="/ca.crt", pair=None) or ""
    assert "unable to get local issuer certificate" in said
    assert "/ca.crt" in said
    assert "no ca_file is given" in (failure(error, hung_up=False, ca_file=None, pair=None) or "")


def test_a_refused_certificate_of_ours_is_named_also_where_the_alert_is_lost() -> None:
    outer = OSError("inside")
    outer.__cause__ = alert("TLSV1_ALERT_UNKNOWN_CA")
    said = failure(outer, hung_up=False, ca_file=None, pair=PAIR) or ""
    assert said.startswith("tlsv1 alert unknown ca: ")
    assert "/our.crt" in said
    assert "no certificate is given" in (failure(OSError(), hung_up=True, ca_file=None, pair=None) or "")


def test_other_failures_are_not_about_certificates() -> None:
    assert failure(OSError("connection refused"), hung_up=False, ca_file=None, pair=PAIR) is None
    assert failure(alert("WRONG_VERSION_NUMBER"), hung_up=False, ca_file=None, pair=PAIR) is None
