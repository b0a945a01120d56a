// Manages and evaluates a flag as an application with jsflagr would, and writes the results as JSON.
// clients_test.go has the expected results. Usage: main.js URL KEY
'use strict';

const {promisify} = require('node:util');
const flagr = require('jsflagr');

const [url, key] = process.argv.slice(2);
const client = new flagr.ApiClient();
client.basePath = url;
const flags = new flagr.FlagApi(client);
const variants = new flagr.VariantApi(client);
const segments = new flagr.SegmentApi(client);
const constraints = new flagr.ConstraintApi(client);
const distributions = new flagr.DistributionApi(client);
const evaluations = new flagr.EvaluationApi(client);

const call = (api, method, ...args) => promisify(api[method].bind(api))(...args);

const flagOf = (f) => ({
  id: f.id,
  key: f.key,
  description: f.description,
  notes: f.notes,
  enabled: f.enabled,
  dataRecordsEnabled: f.dataRecordsEnabled,
  updatedAt: f.updatedAt,
  variants: (f.variants || []).map((v) => v.key),
  segments: (f.segments || []).map((s) => s.description),
});

const resultOf = (r) => ({
  flagID: r.flagID,
  flagKey: r.flagKey,
  variantKey: r.variantKey,
  attachment: r.variantAttachment,
  entityID: r.evalContext.entityID,
  timestamp: r.timestamp,
  segmentLogs: ((r.evalDebugLog || {}).segmentDebugLogs || []).length,
});

// evaluate repeats an evaluation until it uses the enabled flag. A disabled flag assigns no variant.
async function evaluate(flagID) {
  const context = flagr.EvalContext.constructFromObject(
    {flagID, entityID: 'anna', entityType: 'user', entityContext: {country: 'NL', age: 30}, enableDebug: true});
  for (const deadline = Date.now() + 30000; Date.now() < deadline;) {
    const result = await call(evaluations, 'postEvaluation', context);
    if (result.variantKey) {
      return result;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error('evaluation did not see the enabled flag within 30 s');
}

async function batch(which) {
  const request = flagr.EvaluationBatchRequest.constructFromObject({
    entities: [{entityID: 'bert', entityContext: {country: 'BE'}}, {entityID: 'carla', entityContext: {country: 'NL'}}],
    ...which,
  });
  return (await call(evaluations, 'postEvaluationBatch', request)).evaluationResults.map(resultOf);
}

// refusal reads a flag that does not exist.
async function refusal() {
  try {
    await call(flags, 'getFlag', 999999);
  } catch (error) {
    return {status: error.status, message: (error.response.body || {}).message};
  }
  throw new Error('a flag that does not exist was found');
}

async function main() {
  const created = await call(flags, 'createFlag', flagr.CreateFlagRequest.constructFromObject(
    {description: 'made by a client', key}));
  const variant = await call(variants, 'createVariant', created.id, flagr.CreateVariantRequest.constructFromObject(
    {key: 'blue', attachment: {colour: '#00f'}}));
  const segment = await call(segments, 'createSegment', created.id, new flagr.CreateSegmentRequest('the Dutch', 100));
  await call(constraints, 'createConstraint', created.id, segment.id,
    new flagr.CreateConstraintRequest('country', 'EQ', '"NL"'));
  await call(distributions, 'putDistributions', created.id, segment.id, new flagr.PutDistributionsRequest(
    [new flagr.Distribution(100, variant.key, variant.id)]));
  const put = await call(flags, 'putFlag', created.id, flagr.PutFlagRequest.constructFromObject(
    {description: 'changed by a client', notes: 'naïve ☕', dataRecordsEnabled: true}));
  const enabled = await call(flags, 'setFlagEnabled', created.id, new flagr.SetFlagEnabledRequest(true));
  return {
    created: flagOf(created),
    put: flagOf(put),
    enabled: flagOf(enabled),
    evaluated: resultOf(await evaluate(created.id)),
    batchByID: await batch({flagIDs: [created.id]}),
    batchByKey: await batch({flagKeys: [key]}),
    read: flagOf(await call(flags, 'getFlag', created.id)),
    found: (await call(flags, 'findFlags', {key, enabled: true, preload: true})).map(flagOf),
    foundNot: (await call(flags, 'findFlags', {key, enabled: false})).map(flagOf),
    refused: await refusal(),
  };
}

main().then(
  (output) => console.log(JSON.stringify(output)),
  (error) => {
    console.error(error);
    process.exitCode = 1;
  });
