"""What the service itself has said: bodies captured from it, and its documents of both APIs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

TESTS = Path(__file__).parent.parent


def payload(name: str, part: str = "body") -> Any:
    """A captured body, or another part of the capture, by the name of its file without the ending."""
    return json.loads((TESTS / "payloads" / f"{name}.json").read_text(encoding="utf-8"))[part]


class Document:
    """One OpenAPI document of the service."""

    def __init__(self, name: str) -> None:
        text = (TESTS / "openapi" / f"{name}.yaml").read_text(encoding="utf-8")
        self.content: dict[str, Any] = yaml.safe_load(text)
        self.schemas: dict[str, Any] = self.content["components"]["schemas"]

    def fits(self, schema: str, value: Any) -> bool:
        """True if the value is valid under one schema of the document; raises with the reason if it is not."""
        root = {"$ref": f"#/components/schemas/{schema}", "components": self.content["components"]}
        Draft202012Validator(root).validate(value)
        return True
