# An A/B test with two variants, by curl: paste it into a shell, or run it with sh. docs/ab-test.md explains it.
FLAGR_URL=${FLAGR_URL:-http://localhost:18000/api/v1}
JSON='Content-Type: application/json'
id() { grep -o '"id":[0-9]*' | head -n 1 | cut -d: -f2; }

# A flag, two variants, and a segment that everyone is in.
FLAG=$(curl -s "$FLAGR_URL/flags" -H "$JSON" -d '{"description":"color of the checkout button"}' | id)
BLUE=$(curl -s "$FLAGR_URL/flags/$FLAG/variants" -H "$JSON" -d '{"key":"blue","attachment":{"color":"#1f6feb"}}' | id)
GREEN=$(curl -s "$FLAGR_URL/flags/$FLAG/variants" -H "$JSON" -d '{"key":"green","attachment":{"color":"#1a7f37"}}' | id)
SEGMENT=$(curl -s "$FLAGR_URL/flags/$FLAG/segments" -H "$JSON" -d '{"description":"everyone","rolloutPercent":100}' | id)

# Half of them get blue, the other half green.
curl -s -X PUT "$FLAGR_URL/flags/$FLAG/segments/$SEGMENT/distributions" -H "$JSON" -d "{\"distributions\":[
  {\"variantID\":$BLUE,\"variantKey\":\"blue\",\"percent\":50},
  {\"variantID\":$GREEN,\"variantKey\":\"green\",\"percent\":50}]}" > /dev/null

# Record its evaluations, and switch it on. Changes reach the evaluation within 3 s by default.
curl -s -X PUT "$FLAGR_URL/flags/$FLAG" -H "$JSON" -d '{"dataRecordsEnabled":true}' > /dev/null
curl -s -X PUT "$FLAGR_URL/flags/$FLAG/enabled" -H "$JSON" -d '{"enabled":true}' > /dev/null
sleep 4

# 200 users visit the checkout. Each always gets the same variant.
for i in $(seq 200); do
  curl -s "$FLAGR_URL/evaluation" -H "$JSON" -d "{\"flagID\":$FLAG,\"entityID\":\"user-$i\"}" > /dev/null
done

# What each variant got, and what was set beside what came of it.
curl -s "$FLAGR_URL/datar/flags/$FLAG/summary"
curl -s "$FLAGR_URL/datar/flags/$FLAG/rollout"
