"""The documentation is complete where completeness can be checked: keys, fields, annotations, reasons, links, examples."""

import ast
import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

import slurm_plugin.metrics
import vkubelet.api.metrics
import vkubelet.metrics
from sidecar.config import ServerSettings
from slurm_plugin import annotations, refusals
from slurm_plugin.config import SiteSettings
from slurm_plugin.errors import UnsupportedFieldError
from slurm_plugin.pod import Container, PodSpec
from slurmlet.__main__ import main
from slurmlet.config import Configuration, SidecarConfiguration

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
CONFIGURATION = (DOCS / "configuration.md").read_text("utf-8")
PODS = (DOCS / "pods.md").read_text("utf-8")


def models_in(annotation: object) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models that a field can hold, each with how one writes its place: ``[]`` in a list, ``.<name>`` in a map."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield "", annotation
    step = {tuple: "[]", dict: ".<name>"}.get(get_origin(annotation), "")  # type: ignore[call-overload]
    for argument in get_args(annotation):
        for place, model in models_in(argument):
            yield step + place, model


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for part, inner in models_in(field.annotation):
            yield from keys_of(inner, f"{prefix}{name}{part}.")


def is_said_elsewhere(key: str, keys: set[str]) -> bool:
    """Whether a key means in one of several nodes or clusters what it means in the only one."""
    place, _, rest = key.partition("nodes[].")
    if not place and rest:
        return (f"node.{rest}" in keys and rest != "name") or (rest.startswith("sidecar.") and rest in keys)
    _, _, rest = key.partition("clusters.<name>.")
    return rest in keys and rest not in {"slurm", "pods", "policy"}


KEYS = set(keys_of(Configuration))


@pytest.mark.parametrize("key", sorted(key for key in KEYS if not is_said_elsewhere(key, KEYS)))
def test_every_configuration_key_has_a_row(key: str) -> None:
    sections = {"nodes", "clusters", "kubernetes", "node", "api", "slurm", "pods", "node.capacity", "pods.runtime"}
    assert f"| `{key}` |" in CONFIGURATION or (key in sections and f"`{key}." in CONFIGURATION)


def test_the_walk_reaches_lists_maps_and_choices() -> None:
    keys = set(keys_of(Configuration))

    assert {
        "policy[].max_gpus",
        "pods.resources.<name>.gres",
        "slurm.host.prefix",
        "slurm.host.known_hosts_file",
    } <= keys


def yaml_blocks(text: str) -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", yaml_blocks(CONFIGURATION) + yaml_blocks((ROOT / "README.md").read_text("utf-8")))
def test_every_configuration_shown_is_valid(block: str) -> None:
    document = yaml.safe_load(block)

    Configuration.model_validate({"slurm": {"host": {"kind": "local"}}, **document})


def test_every_metric_of_the_agent_is_explained() -> None:
    text = (DOCS / "metrics.md").read_text("utf-8")
    names = {
        name for module in (vkubelet.metrics, slurm_plugin.metrics, vkubelet.api.metrics) for name in metrics_in(module)
    }
    assert len(names) > 10
    assert names == set(re.findall(r"^\| `(slurmlet_\w+)` \|", text, re.MULTILINE))


def metrics_in(module: ModuleType) -> Iterator[str]:
    assert module.__file__ is not None
    tree = ast.walk(ast.parse(Path(module.__file__).read_text("utf-8")))
    strings = [node.value for node in tree if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    yield from (text for text in strings if re.fullmatch(r"slurmlet_\w+", text))


def test_every_number_shown_as_a_default_is_the_code_s() -> None:
    slurm = {"slurm": {"host": {"kind": "local"}}, "ha": {"namespace": "slurmlet"}}
    settings = Configuration.model_validate(slurm)
    interlink = Configuration.model_validate({"interlink": {"url": "unix:///x", "directory": "/x"}})
    pair = {"certificate_file": "/c", "key_file": "/k"}
    calls = {"switchboard": {"certificate": pair, "client_ca_file": "/ca"}, "sidecar": {"name": "s"}}
    switchboard = Configuration.model_validate(calls)
    shown = re.findall(r"^\| `([a-z_.]+)` \|[^|]*\| `([0-9.]+)` \|", CONFIGURATION, re.MULTILINE)
    assert len(shown) > 10
    for key, number in shown:
        if not key.startswith(
            ("slurm.host.", "slurm.client.", "api.listen", "switchboard.listen")
        ):  # of a kind of host that was not chosen; an address
            of = {"interlink": interlink, "switchboard": switchboard}.get(key.partition(".")[0], settings)
            assert float(attrgetter(key)(of)) == float(number), key


OTHERS = re.findall(r"^\| `([^`]+/[^`]+|JobID)` \| (is|refused|not looked at)\b(?: `([^`]+)`)?", PODS, re.MULTILINE)
SAMPLES = {
    "gres": "gpu:1",
    "job-name": "a job",
    "exclusive": "true",
    "licenses": "matlab",
    "priority": "5",
    "flags": "--hint=compute_bound",
}


def test_the_table_of_others_names_has_every_alias() -> None:
    aliases = {(kind.alias, annotations.OURS + name) for name, kind in annotations._KINDS.items() if kind.alias}
    aliases.add((annotations._FEWEST_NODES, annotations.OURS + "nodes"))
    assert {(name, ours) for name, fate, ours in OTHERS if fate == "is"} == aliases
    assert {name for name, fate, _ in OTHERS if fate == "refused"} == set(annotations._REFUSED)


@pytest.mark.parametrize(("name", "fate", "ours"), OTHERS)
def test_others_names_are_what_the_table_says(name: str, fate: str, ours: str) -> None:
    value = SAMPLES.get(name.rpartition("/")[2], "4")
    if fate == "refused":
        with pytest.raises(UnsupportedFieldError, match=re.escape(annotations._REFUSED[name])):
            annotations.parse_annotations({name: value})
    elif fate == "is":
        wish = annotations.parse_annotations({name: value})
        assert wish == annotations.parse_annotations({ours: value}) != annotations.Annotations()
    else:
        assert annotations.parse_annotations({name: value}) == annotations.Annotations()


def test_sidecars_shown_are_valid_and_their_keys_have_rows() -> None:
    text = (DOCS / "connections.md").read_text("utf-8")
    shown = [yaml.safe_load(block) for block in yaml_blocks(text)]
    of_sidecars = [document for document in shown if "slurm" in document and {"serve", "interlink"} & set(document)]
    assert {key for document in of_sidecars for key in ("serve", "interlink") if key in document} == {
        "serve",
        "interlink",
    }
    for document in of_sidecars:
        SidecarConfiguration.model_validate(document)
    for key in ServerSettings.model_fields:
        assert f"`serve.{key}`" in text


HARMLESS = sorted({
    *(f"spec.{field}" for field in refusals._HARMLESS_POD),
    *(f"spec.securityContext.{field}" for field in refusals._HARMLESS_POD_SECURITY),
    *refusals._HARMLESS_CONTAINER,
    *(f"ports[].{field}" for field in refusals._HARMLESS_PORT),
})  # fmt: skip


@pytest.mark.parametrize("field", HARMLESS)
def test_every_harmless_field_has_its_reason(field: str) -> None:
    harmless = PODS[PODS.index("### Harmless") : PODS.index("### Refused")]

    assert f"`{field}`" in harmless


def test_no_other_kind_of_object_has_harmless_fields_unknown_to_this_test() -> None:
    assert set(refusals._HARMLESS) == {"PodSpec", "Container", "ContainerPort", "SecurityContext", "FieldSelector"}
    assert refusals._HARMLESS_SECURITY <= refusals._HARMLESS_POD_SECURITY


@pytest.mark.parametrize("model", [PodSpec, Container])
def test_every_field_that_is_read_is_explained(model: type[BaseModel]) -> None:
    names = {field.alias or name for name, field in model.model_fields.items()}

    assert not {name for name in names if not re.search(rf"`(spec\.)?{name}`|`(spec\.)?{name}[.:]", PODS)}


@pytest.mark.parametrize("name", sorted(annotations._KINDS))
def test_every_annotation_and_its_alias_have_a_row(name: str) -> None:
    alias = annotations._KINDS[name].alias

    assert f"| `{annotations.OURS}{name}` | " + (f"`{alias}`" if alias else "") in PODS


def reasons() -> Iterator[str]:
    """Reasons in the sources: what is given by name to the functions and classes that make one."""
    makers = {
        "Ending": 0,
        "Refusal": 0,
        "Hold": 0,
        "Waiting": 0,
        "warn": 1,
        "event": 0,
        "terminate": 0,
        "PullError": 0,
        "condition": 1,
    }
    for path in (*(ROOT / "slurm_plugin").rglob("*.py"), *(ROOT / "vkubelet").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(call, ast.Call):
                continue
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            position = makers.get(name.removeprefix("_"), 99)
            word = call.args[position] if len(call.args) > position else None
            if (
                isinstance(word, ast.Constant)
                and isinstance(word.value, str)
                and re.fullmatch(r"[A-Z][A-Za-z]+", word.value)
            ):
                yield word.value


def test_every_reason_that_a_user_can_meet_is_explained() -> None:
    usual = {"Initialized", "ContainersReady", "Ready"}  # conditions that mean what they mean everywhere
    found = set(reasons()) - usual

    assert {"SlurmPreempted", "SlurmLimit", "CrashLoopBackOff", "InvalidImageName"} <= found
    assert not {reason for reason in found if f"`{reason}`" not in PODS}


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


def holds_pods(path: Path) -> bool:
    return all(document["kind"] == "Pod" for document in yaml.safe_load_all(path.read_text("utf-8")) if document)


@pytest.mark.parametrize("example", [path for path in EXAMPLES if holds_pods(path)], ids=lambda path: path.name)
def test_every_example_pod_can_be_rendered(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", str(example)]) == 0
    assert "#SBATCH" in capsys.readouterr().out


def test_site_settings_are_part_of_the_one_file() -> None:
    assert set(SiteSettings.model_fields) <= set(Configuration.model_fields)
