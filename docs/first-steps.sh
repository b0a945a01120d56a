# The first steps with a server that `make run` started: paste them into a shell, or run them with sh.
FLAGR_URL=${FLAGR_URL:-http://localhost:18000/api/v1}
JSON='Content-Type: application/json'

# Create a flag with one variant, "on", for everybody. Switch it and its records on.
FLAG=$(curl -s "$FLAGR_URL/flags" -H "$JSON" -d '{"description":"try Datar","template":"simple_boolean_flag"}' |
  grep -o '"id":[0-9]*' | head -n 1 | cut -d: -f2)
curl -s -X PUT "$FLAGR_URL/flags/$FLAG" -H "$JSON" -d '{"dataRecordsEnabled":true}' > /dev/null
curl -s -X PUT "$FLAGR_URL/flags/$FLAG/enabled" -H "$JSON" -d '{"enabled":true}' > /dev/null

# Changes reach the evaluation within FLAGR_EVALCACHE_REFRESHINTERVAL, 3 s by default. Then evaluate ten times.
sleep 4
for i in 1 2 3 4 5 6 7 8 9 10; do
  curl -s "$FLAGR_URL/evaluation" -H "$JSON" -d "{\"flagID\":$FLAG,\"entityID\":\"user-$i\"}"
done

# Read what the flag did: over all flags, and this one by variant, segment and day.
curl -s "$FLAGR_URL/datar/summary"
curl -s "$FLAGR_URL/datar/flags/$FLAG/summary"
