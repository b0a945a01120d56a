"""Manages and evaluates a flag as an application with the package flagr would, and writes the results as JSON.

clients_test.go has the expected results. Usage: main.py URL KEY
"""

import json
import sys
import time

import flagr
from flagr.rest import ApiException

url, key = sys.argv[1:]
configuration = flagr.Configuration()
configuration.host = url
client = flagr.ApiClient(configuration)
flags = flagr.FlagApi(client)
variants = flagr.VariantApi(client)
segments = flagr.SegmentApi(client)
constraints = flagr.ConstraintApi(client)
distributions = flagr.DistributionApi(client)
evaluations = flagr.EvaluationApi(client)


def flag_of(f):
    return {
        "id": f.id,
        "key": f.key,
        "description": f.description,
        "notes": f.notes,
        "enabled": f.enabled,
        "dataRecordsEnabled": f.data_records_enabled,
        "updatedAt": f.updated_at.isoformat(),
        "variants": [v.key for v in f.variants or []],
        "segments": [s.description for s in f.segments or []],
    }


def result_of(r):
    return {
        "flagID": r.flag_id,
        "flagKey": r.flag_key,
        "variantKey": r.variant_key,
        "attachment": r.variant_attachment,
        "entityID": r.eval_context.entity_id,
        "timestamp": r.timestamp,
        "segmentLogs": len((r.eval_debug_log and r.eval_debug_log.segment_debug_logs) or []),
    }


def evaluate(flag_id):
    """Repeats an evaluation until it uses the enabled flag. Before that the flag gives nothing."""
    context = flagr.EvalContext(flag_id=flag_id, entity_id="anna", entity_type="user",
                                entity_context={"country": "NL", "age": 30}, enable_debug=True)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        result = evaluations.post_evaluation(context)
        if result.variant_key:
            return result
        time.sleep(0.02)
    raise TimeoutError("evaluation did not see the enabled flag within 30 s")


def batch(**which):
    entities = [
        flagr.EvaluationEntity(entity_id="bert", entity_context={"country": "BE"}),
        flagr.EvaluationEntity(entity_id="carla", entity_context={"country": "NL"}),
    ]
    request = flagr.EvaluationBatchRequest(entities=entities, **which)
    return [result_of(r) for r in evaluations.post_evaluation_batch(request).evaluation_results]


def refusal():
    """Reads a flag that does not exist."""
    try:
        flags.get_flag(999999)
    except ApiException as e:
        return {"status": e.status, "message": json.loads(e.body)["message"]}
    raise AssertionError("a flag that does not exist was found")


# Without a template: the segment of simple_boolean_flag has an empty description, which this client rejects.
created = flags.create_flag(flagr.CreateFlagRequest(description="made by a client", key=key))
variant = variants.create_variant(created.id, flagr.CreateVariantRequest(key="blue", attachment={"colour": "#00f"}))
segment = segments.create_segment(created.id, flagr.CreateSegmentRequest(description="the Dutch", rollout_percent=100))
constraints.create_constraint(created.id, segment.id, flagr.CreateConstraintRequest(
    _property="country", operator="EQ", value='"NL"'))
distributions.put_distributions(created.id, segment.id, flagr.PutDistributionsRequest(distributions=[
    flagr.Distribution(percent=100, variant_key=variant.key, variant_id=variant.id)]))
put = flags.put_flag(created.id, flagr.PutFlagRequest(
    description="changed by a client", notes="naïve ☕", data_records_enabled=True))
enabled = flags.set_flag_enabled(created.id, flagr.SetFlagEnabledRequest(enabled=True))
print(json.dumps({
    "created": flag_of(created),
    "put": flag_of(put),
    "enabled": flag_of(enabled),
    "evaluated": result_of(evaluate(created.id)),
    "batchByID": batch(flag_i_ds=[created.id]),
    "batchByKey": batch(flag_keys=[key]),
    "read": flag_of(flags.get_flag(created.id)),
    "found": [flag_of(f) for f in flags.find_flags(key=key, enabled=True, preload=True)],
    "foundNot": [flag_of(f) for f in flags.find_flags(key=key, enabled=False)],
    "refused": refusal(),
}))
