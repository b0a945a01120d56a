"""Evaluates flags with OpenFeature's SDK for Python and its OFREP provider. It writes the results as JSON."""

import json
import sys

from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext


def short(details):
    return {
        "value": details.value,
        "reason": str(details.reason),
        "variant": details.variant or "",
        "errorCode": str(details.error_code.value) if details.error_code else "",
    }


def evaluate(client, context):
    return {
        "checkout": short(client.get_object_details("checkout", {"color": "default"}, context)),
        "new-search": short(client.get_boolean_details("new-search", False, context)),
        "page-size": short(client.get_float_details("page-size", 5.0, context)),
        "old": short(client.get_boolean_details("old", True, context)),
        "a/b": short(client.get_string_details("a/b", "default", context)),
        "nobody": short(client.get_string_details("nobody", "default", context)),
    }


api.set_provider(OFREPProvider(sys.argv[1], headers_factory=lambda: {"X-API-Key": sys.argv[2]} if len(sys.argv) > 2 else {}))
client = api.get_client()
json.dump({
    "french": evaluate(client, EvaluationContext("user-1", {"country": "FR"})),
    "nobody": evaluate(client, None),
}, sys.stdout)
