"""Validates lists of materials with cyclonedx-python-lib, strictly and as version 1.6: python .ci/materials.py FILE…"""
import json
import sys

from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

validator = JsonStrictValidator(SchemaVersion.V1_6)
paths = sys.argv[1:]
assert paths, "there are no files"
for path in paths:
    text = open(path, encoding="utf-8").read()
    error = validator.validate_str(text)
    if error is not None:
        sys.exit(f"{path}: {error}")
    bom = Bom.from_json(json.loads(text))
    model = bom.metadata.component
    assert model is not None and model.type.value == "machine-learning-model", path
    # The validator sees what a person forgets as well.
    broken = json.loads(text)
    del broken["metadata"]["component"]["name"]
    assert validator.validate_str(json.dumps(broken)) is not None, "the validator takes anything"
    print(f"{path}: {model.name} of {len(bom.components)} materials, {len(list(bom.metadata.properties))} facts missing")
