"""Runs the main job with a client that was generated from swagger.yaml, and writes the results as JSON.

generated_clients_test.go has the expected results. Usage: main.py URL KEY
"""

import json
import sys
import time

from client import Client
from client.api.datar import get_datar_flag_summary
from client.api.evaluation import post_evaluation
from client.api.flag import create_flag, get_flag, put_flag, set_flag_enabled
from client.models import CreateFlagRequest, EvalContext, PutFlagRequest, SetFlagEnabledRequest

url, key = sys.argv[1:3]
api = Client(base_url=url, raise_on_unexpected_status=True)


def until(result, done):
    deadline = time.monotonic() + 30
    while True:
        r = result()
        if done(r):
            return r
        if time.monotonic() > deadline:
            raise TimeoutError("no change within 30 s")
        time.sleep(0.05)


def evaluate():
    return post_evaluation.sync(client=api, body=EvalContext(flag_key=key, entity_id="anna", enable_debug=True))


def total():
    summary = get_datar_flag_summary.sync(id_, client=api)
    return sum(v.count for v in summary.traffic_by_variant)


flag = create_flag.sync(
    client=api,
    body=CreateFlagRequest(key=key, description="made by a generated client", template="simple_boolean_flag"),
)
id_ = flag.id
put_flag.sync(id_, client=api, body=PutFlagRequest(data_records_enabled=True))
off = evaluate()  # neither a variant nor an attachment
set_flag_enabled.sync(id_, client=api, body=SetFlagEnabledRequest(enabled=True))
on = until(evaluate, lambda r: r.variant_key == "on")
counted = until(total, lambda n: n > 0)
missing = get_flag.sync_detailed(999_999, client=api)
print(json.dumps({
    "created": flag.key,
    "off": off.variant_key or "",
    "offAttachment": off.variant_attachment or None,
    "on": on.variant_key,
    "logs": len(on.eval_debug_log.segment_debug_logs),
    "counted": counted > 0,
    "status": missing.status_code.value,
    "message": missing.parsed.message,
}))
