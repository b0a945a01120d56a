// Runs the main job with a client that was generated from swagger.yaml, and writes the results as JSON.
// generated_clients_test.go has the expected results. Usage: main.js URL KEY
import { Api, type EvalResult } from "./api.js";

declare const process: { argv: string[] };

const [url, key] = process.argv.slice(2);
const api = new Api({ baseUrl: url });

async function until(result: () => Promise<EvalResult>, done: (r: EvalResult) => boolean): Promise<EvalResult> {
  const deadline = Date.now() + 30_000;
  for (;;) {
    const r = await result();
    if (done(r)) return r;
    if (Date.now() > deadline) throw new Error("evaluation did not see the change within 30 s");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

const flag = (await api.flags.createFlag({ key, description: "made by a generated client", template: "simple_boolean_flag" })).data;
const id = flag.id!;
await api.flags.putFlag(id, { dataRecordsEnabled: true });
const evaluate = async () => (await api.evaluation.postEvaluation({ flagKey: key, entityID: "anna", enableDebug: true })).data;
const off = await evaluate(); // neither a variant nor an attachment
await api.flags.setFlagEnabled(id, { enabled: true });
const on = await until(evaluate, (r) => r.variantKey === "on");

let total = 0;
for (const deadline = Date.now() + 30_000; total === 0 && Date.now() < deadline; ) {
  total = (await api.datar.getDatarFlagSummary(id, {})).data.trafficByVariant?.reduce((sum, v) => sum + (v.count ?? 0), 0) ?? 0;
}
let status = 0;
let message = "";
try {
  await api.flags.getFlag(999_999);
} catch (failure) {
  const answer = failure as { status: number; error: { message: string } };
  status = answer.status;
  message = answer.error.message;
}
console.log(JSON.stringify({
  created: flag.key,
  off: off.variantKey ?? "",
  offAttachment: off.variantAttachment ?? null,
  on: on.variantKey,
  logs: on.evalDebugLog?.segmentDebugLogs?.length ?? 0,
  counted: total > 0,
  status,
  message,
}));
