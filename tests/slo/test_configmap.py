"""Files in a ConfigMap: what comes out is what went in, and only what Kubernetes takes."""

from __future__ import annotations

import pytest
import yaml

from greenops_pipelines.errors import BadInput
from greenops_pipelines.slo.configmap import MAX_BYTES, configmap

TEXTS = {
    "rules.yaml": "groups:\n- name: a\n  rules: []\n",
    "no-newline.txt": "a\nb",
    "blank-lines.txt": "a\n\n\n",
    "spaces.txt": "  indented\ntrailing \n\ttab\n",
    "word.txt": "true",
    "number.txt": "0123",
    "empty.txt": "",
    "signs.txt": "# no comment: {{ $value }} 'and' \"so on\" %\n",
    "umlaut.txt": "Grüße, ≤ 500 ms\n",
    "windows.txt": "a\r\nb\r\n",
    "on": "y",
}


def test_every_file_comes_back_byte_for_byte() -> None:
    document = yaml.safe_load(
        configmap("slo-definitions", TEXTS, "observability", {"app.kubernetes.io/part-of": "yes"})
    )
    assert document == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "slo-definitions",
            "namespace": "observability",
            "labels": {"app.kubernetes.io/part-of": "yes"},
        },
        "data": TEXTS,
    }


def test_the_bytes_do_not_depend_on_the_order_of_the_files() -> None:
    assert configmap("a", TEXTS, "b", {"x": "1", "y": "2"}) == configmap(
        "a", dict(reversed(TEXTS.items())), "b", {"y": "2", "x": "1"}
    )
    assert configmap("rules", {"a.yaml": "x: 1\ny: 2\n"}, "obs") == (
        "apiVersion: v1\n"
        "data:\n"
        "  a.yaml: |\n"
        "    x: 1\n"
        "    y: 2\n"
        "kind: ConfigMap\n"
        "metadata:\n"
        "  name: rules\n"
        "  namespace: obs\n"
    )


@pytest.mark.parametrize("name", ["Upper", "under_score", "-a", "a-", "a..b", "a" * 254, "", "a\n"])
def test_a_name_that_kubernetes_refuses_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="found the name") as refused:
        configmap(name, {})
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("files", "namespace", "labels", "said"),
    [
        ({"a/b.yaml": ""}, "", {}, "found the file 'a/b.yaml'"),
        ({"..": ""}, "", {}, "found the file '..'"),
        ({"..data": ""}, "", {}, "found the file '..data'"),
        ({"": ""}, "", {}, "found the file ''"),
        ({}, "a.b", {}, "found the namespace 'a.b', allowed: lower-case letters, digits and -, at most 63"),
        ({}, "", {"a b": "x"}, "found the label 'a b'"),
        ({}, "", {"/a": "x"}, "found the label '/a'"),
        ({}, "", {"team": "x" * 64}, "found the label's value"),
        ({}, "", {"team": "two words"}, "found the label's value 'two words'"),
    ],
)
def test_what_kubernetes_refuses_is_one_line(
    files: dict[str, str], namespace: str, labels: dict[str, str], said: str
) -> None:
    with pytest.raises(BadInput) as refused:
        configmap("slo", files, namespace, labels)
    assert str(refused.value).startswith(f"ConfigMap slo: {said}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["a", "a" * 253, "slo-definitions.v1", "0"])
def test_a_name_that_kubernetes_takes_is_taken(name: str) -> None:
    found = yaml.safe_load(configmap(name, {}, labels={"example.org/team": "a.b_c", "empty": ""}))
    assert found["metadata"] == {"name": name, "labels": {"example.org/team": "a.b_c", "empty": ""}}


def test_one_mebibyte_fits_and_a_byte_more_does_not() -> None:
    # A key's bytes count, and é is two.
    full = {"k": "é" * ((MAX_BYTES - 2) // 2) + "x"}
    assert len(yaml.load(configmap("a", full), yaml.CSafeLoader)["data"]["k"]) == MAX_BYTES // 2
    with pytest.raises(BadInput, match=r"ConfigMap a: found 1,048,577 bytes, allowed: at most 1,048,576"):
        configmap("a", {"k": full["k"] + "x"})
