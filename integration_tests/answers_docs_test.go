package integration_tests

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// documented is a command of docs/answers.md, and the answer that the page shows below it, if any.
type documented struct {
	command string
	filter  string // the jq filter of the command
	fenced  bool   // the command has a block of its own, not a place in a sentence
	shown   string
}

// documentedCurls returns the commands in the order of the page.
func documentedCurls(t *testing.T) (all []documented) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "docs", "answers.md"))
	if err != nil {
		t.Fatal(err)
	}
	curls := regexp.MustCompile("(?s)\n```\n(curl .*?)\n```\n(?:\n```(?:json|text)\n(.*?)\n```\n)?|[^`]`(curl [^`]+)`[^`]")
	for _, match := range curls.FindAllStringSubmatch(string(page), -1) {
		command, filter, _ := strings.Cut(match[1]+match[3], " | jq ")
		all = append(all, documented{command: strings.ReplaceAll(command, "\\\n", ""), filter: strings.Trim(filter, "'"), fenced: match[1] != "", shown: match[2]})
	}
	if len(all) < 15 {
		t.Fatalf("docs/answers.md has only %d curls", len(all))
	}
	return all
}

// documentedFlag creates the flag of docs/answers.md, with ID 7, and evaluates it with each
// outcome. It returns the ID of its segment, and an entity that gets a variant.
func documentedFlag(t *testing.T, s *server) (segment int64, entity string) {
	t.Helper()
	for i := range 6 {
		newFlag(t, s, fmt.Sprint("other-", i))
	}
	f := send[flagAnswer](t, s, http.MethodPost, "/flags", object{"key": "checkout-button", "description": "color"})
	if f.ID != 7 {
		t.Fatalf("the flag is %d, want 7 as on the page", f.ID)
	}
	definition := get[object](t, s, "/flags/7/definition")
	definition["dataRecordsEnabled"] = true
	definition["variants"] = []object{{"key": "blue"}, {"key": "green"}}
	definition["segments"] = []object{{"description": "Adults in France", "rolloutPercent": 20,
		"constraints":   []object{{"property": "country", "operator": "EQ", "value": `"FR"`}, {"property": "age", "operator": "GTE", "value": "18"}},
		"distributions": []object{{"variantKey": "blue", "percent": 50}, {"variantKey": "green", "percent": 50}}}}
	send[any](t, s, http.MethodPut, "/flags/7/definition", definition)
	awaitChanges(t, s)
	french := object{"country": "FR", "age": 30}
	evaluate(t, s, f, "while-it-is-off", french)
	send[any](t, s, http.MethodPut, "/flags/7/enabled", object{"enabled": true})
	segment = get[flagAnswer](t, s, "/flags/7").Segments[0].ID
	send[any](t, s, http.MethodPut, fmt.Sprintf("/flags/7/segments/%d", segment), object{"description": "Adults in France", "rolloutPercent": 50})
	awaitChanges(t, s)

	entities := make([]object, 100)
	for i := range entities {
		entities[i] = object{"entityID": fmt.Sprint("person-", i), "entityContext": french}
	}
	tried := send[struct {
		Results []struct{ EntityID, Outcome string }
	}](t, s, http.MethodPost, "/flags/7/try", object{"entities": entities})
	one := map[string]string{} // by outcome
	for _, r := range tried.Results {
		one[r.Outcome] = r.EntityID
	}
	if one["matched"] == "" || one["held_out"] == "" {
		t.Fatalf("outcomes at a rollout of 50%%: %v", one)
	}
	for range 3 { // one variant of two: a finding
		evaluate(t, s, f, one["matched"], french)
	}
	evaluate(t, s, f, one["held_out"], french)
	evaluate(t, s, f, "a", object{"country": "DE", "age": 30})
	evaluate(t, s, f, "a", object{"country": "FR", "age": "30"})
	send[any](t, s, http.MethodPost, "/evaluation", object{"flagID": 7, "entityContext": object{"country": "DE", "age": 30}}) // has no entity ID
	_ = s.call(t, http.MethodPost, "/evaluation", object{"flagKey": "chekout-button", "entityID": "a"})
	poll(t, "the counts of the flag", func() bool { return get[struct{ Total int }](t, s, "/datar/flags/7/outcomes").Total == 8 })
	poll(t, "the sample of reasons", func() bool { return get[struct{ Examined int }](t, s, "/datar/flags/7/reasons").Examined > 0 })
	poll(t, "the unknown key", func() bool { return len(get[struct{ Unknown []object }](t, s, "/datar/unknown").Unknown) > 0 })
	return segment, one["matched"]
}

// TestCurlsOfTheAnswers runs every curl of docs/answers.md against a server with such a flag. An
// answer has the members that the page shows, of the same types.
func TestCurlsOfTheAnswers(t *testing.T) {
	t.Parallel()
	lookUp(t, "curl")
	s := startIn(t, t.TempDir(), quick.with(environ{"FLAGR_RECORDER_DATAR_TAIL_ENABLED": "true"}))
	segment, entity := documentedFlag(t, s)
	for _, d := range documentedCurls(t) {
		if d.fenced && d.shown == "" && d.filter != "" {
			t.Errorf("docs/answers.md shows no answer to %s", d.command)
		}
		command := strings.NewReplacer("localhost:18000/api/v1", s.url, "/flags/51", "/flags/6", `"id": 23`, fmt.Sprintf(`"id": %d`, segment),
			"stale=true&", "").Replace(strings.Join(strings.Fields(d.command), " ")) // no flag is stale yet
		command = strings.Replace(command, "curl ", "curl -sS --fail-with-body --max-time 60 ", 1)
		if strings.Contains(command, "/tail") {
			tailed(t, s, command, d.shown, entity)
			continue
		}
		output, err := exec.CommandContext(t.Context(), "sh", "-c", command).Output()
		if err != nil {
			t.Errorf("%s: %v\n%s", command, err, output)
			continue
		}
		if d.shown == "" {
			continue
		}
		var answer, shown any
		decode(t, output, &answer)
		decode(t, []byte(d.shown), &shown)
		compareMembers(t, d.command, membersOf(shown), membersOf(filtered(t, answer, d.filter)))
	}
}

// tailed runs the command of the live tail until it has printed an evaluation.
func tailed(t *testing.T, s *server, command, shown, entity string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "exec "+command)
	lines, wait := startLines(t, cmd)
	defer func() {
		_ = cmd.Process.Kill()
		for range lines { // until it has ended
		}
		_ = wait() // it was killed
	}()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("%s ended", command)
			}
			data, found := strings.CutPrefix(line, "data: ")
			if !found {
				continue
			}
			var answer, event any
			decode(t, []byte(data), &answer)
			for documentedLine := range strings.Lines(shown) {
				if text, ok := strings.CutPrefix(documentedLine, "data: "); ok {
					decode(t, []byte(text), &event)
				}
			}
			compareMembers(t, command, membersOf(event), membersOf(answer))
			return
		case <-tick.C:
			evaluate(t, s, flagAnswer{ID: 7}, entity, object{"country": "FR", "age": 30})
		case <-deadline:
			t.Fatalf("%s prints no evaluation", command)
		}
	}
}

// filtered applies a jq filter: members of an object, or one member. An index is not applied, since
// the server has other versions and flags than the page: then all items are compared.
func filtered(t *testing.T, answer any, filter string) any {
	t.Helper()
	if filter == "" {
		return answer
	}
	for part := range strings.SplitSeq(filter, " | ") {
		if list, ok := answer.([]any); ok && strings.HasPrefix(part, "{") {
			items := make([]any, len(list))
			for i := range list {
				items[i] = filtered(t, list[i], part)
			}
			answer = items
			continue
		}
		in, ok := answer.(map[string]any)
		if !ok {
			t.Fatalf("%s of %v", part, answer)
		}
		if names, ok := strings.CutPrefix(part, "{"); ok {
			out := map[string]any{}
			for name := range strings.SplitSeq(strings.TrimSuffix(names, "}"), ", ") {
				out[name] = in[name]
			}
			answer = out
			continue
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(part, "."), "[")
		answer = in[name]
	}
	return answer
}

// membersOf returns the types of all values within a JSON value, by the names that lead to them.
// Items of lists at the top have no names.
func membersOf(value any) map[string]string {
	types := map[string]string{}
	var walk func(path string, value any)
	walk = func(path string, value any) {
		switch v := value.(type) {
		case map[string]any:
			for name, member := range v {
				walk(path+"."+name, member)
			}
		case []any:
			if path != "" {
				path += "[]"
			}
			for _, item := range v {
				walk(path, item)
			}
		case nil:
			if types[path] == "" { // no other item has the member either
				types[path] = "null"
			}
		case string:
			types[path] = "string"
			if _, err := time.Parse(time.RFC3339, v); err == nil {
				types[path] = "time"
			}
		default:
			types[path] = fmt.Sprintf("%T", v)
		}
	}
	walk("", value)
	return types
}

// compareMembers reports members that the page shows and the answer lacks.
func compareMembers(t *testing.T, command string, shown, got map[string]string) {
	t.Helper()
	if len(shown) == 0 {
		t.Errorf("%s: the page shows nothing", command)
	}
	for path, kind := range shown {
		switch path {
		case ".by", ".evidence.variantKey": // without a login, and before a flag is launched
			continue
		}
		if got[path] != kind {
			t.Errorf("%s: %s is %q, and the page shows %s", command, path, got[path], kind)
		}
	}
}
