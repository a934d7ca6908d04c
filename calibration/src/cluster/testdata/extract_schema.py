#!/usr/bin/env python3
"""Writes kubernetes.schema.json: the API's published schema of Job and PersistentVolumeClaim, without descriptions.

    pip download --no-deps kubernetes-validate==1.37.0
    python3 extract_schema.py kubernetes_validate-1.37.0-py3-none-any.whl > kubernetes.schema.json

The package has the OpenAPI definitions of Kubernetes 1.37 as JSON schemas; the "strict" ones allow no properties beside
those that are named.
"""

import json
import sys
import zipfile

DEFINITIONS = "kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict/_definitions.json"
ROOTS = {"Job": "io.k8s.api.batch.v1.Job", "PersistentVolumeClaim": "io.k8s.api.core.v1.PersistentVolumeClaim"}


def main():
    published = json.loads(zipfile.ZipFile(sys.argv[1]).read(DEFINITIONS))["$defs"]
    definitions, left = {}, list(ROOTS.values())

    def cleaned(value):
        if isinstance(value, list):
            return [cleaned(one) for one in value]
        if not isinstance(value, dict):
            return value
        if isinstance(value.get("$ref"), str):
            name = value["$ref"].split("/")[-1]
            left.append(name)
            return {"$ref": f"#/definitions/{name}"}
        kept = {}
        for key, one in value.items():
            if not key.startswith("x-kubernetes") and not (key == "description" and isinstance(one, str)):
                kept[key] = cleaned(one)
        return kept

    while left:
        name = left.pop()
        if name not in definitions:
            definitions[name] = cleaned(published[name])
    kinds = {kind: {"$ref": f"#/definitions/{name}"} for kind, name in ROOTS.items()}
    json.dump({"kinds": kinds, "definitions": dict(sorted(definitions.items()))}, sys.stdout, separators=(",", ":"))
    print()


main()
