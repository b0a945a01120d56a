package app_test

import (
	"encoding/json"
	"go/ast"
	"go/constant"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flagr-datar/flagr-datar/pkg/config"
	"github.com/flagr-datar/flagr-datar/swagger_gen/restapi"
)

// statement is a limit that a text states. The groups of pattern match its numbers. limits has, for
// each of them, a constant with its package below pkg, or a variable, whose default is meant. A
// second word is the unit of the number. Without limits, only the generated code enforces the
// number, and all matches must agree.
type statement struct {
	pattern string
	limits  []string
}

// units are divisors of constants by the unit in texts.
var units = map[string]int64{
	"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "24": 24,
	"s": int64(time.Second), "min": int64(time.Minute), "h": int64(time.Hour), "d": int64(24 * time.Hour),
}

// ofDescription are the limits in swagger.yaml.
var ofDescription = []statement{
	{`Keys have 1 to (\d+) ASCII`, []string{"entity.MaxKeyLength"}},
	{`[Aa]t most (\d+) ASCII`, []string{"entity.MaxKeyLength"}},
	{`more than (\d+) characters`, []string{"entity.MaxKeyLength"}},
	{`more than (\d+) levels`, []string{"entity.MaxJSONDepth"}},
	{`^(?:variants|segments|constraints|distributions) maxItems (\d+)`, []string{"entity.maxDefinitionParts"}},
	{`(?:^tags maxItems|flag's tags\. At most) (\d+)`, nil},
	{`the states exceed (\d+) MiB`, []string{"store.maxAnswerBytes MiB"}},
	{`FLAGR_EVALCACHE_REFRESHINTERVAL, (\d+) s by default`, []string{"FLAGR_EVALCACHE_REFRESHINTERVAL s"}},
	{`FLAGR_EVAL_GET_MAX_URL_BYTES bytes \((\d+) by default`, []string{"FLAGR_EVAL_GET_MAX_URL_BYTES"}},
	{`FLAGR_EXPOSURE_BATCH_SIZE \((\d+) by default`, []string{"FLAGR_EXPOSURE_BATCH_SIZE"}},
	{`more than the (\d+) allowed`, []string{"FLAGR_EXPOSURE_BATCH_SIZE"}},
	{`FLAGR_RECORDER_DATAR_FLUSH_INTERVAL \((\d+) s by default`, []string{"FLAGR_RECORDER_DATAR_FLUSH_INTERVAL s"}},
	{`At most this many (?:flags|entries), from 1 to (\d+)\. Default: (\d+)\.`, []string{"datar.MaxLimit", "datar.DefaultLimit"}},
	{`At most this many changes, from 1 to (\d+)\. Default: (\d+)\.`, []string{"insight.maxChanges", "insight.defaultChanges"}},
	{`limit is \d+, want 1 to (\d+)`, []string{"datar.MaxLimit"}},
	{`Default: (\d+) days ago`, []string{"datar.defaultWindow d"}},
	{`all servers and the last (\d+) days`, []string{"datar.defaultWindow d"}},
	{`may have (\d+) rows and (\d+) MiB`, []string{"datar/ingest.MaxRows", "datar/ingest.MaxBytes MiB"}},
	{`(?:string of 1 to|^Idempotency-Key maxLength) (\d+)`, []string{"datar/ingest.MaxKeyLength"}},
	{`sent again with it within (\d+) hours`, []string{"datar/ingest.maxAge h"}},
	{`may be (\d+) days old instead of (\d+) hours`, []string{"datar/ingest.maxWriterAge d", "datar/ingest.maxAge h"}},
	{
		`not 1 to ([\d,]+) \(BAD_COUNT\), if a time is more than (\d+) hours ago or more than (\d+) minutes in`,
		[]string{"datar/ingest.MaxCount", "datar/ingest.maxAge h", "datar/ingest.maxSkew min"},
	},
	{`from edge servers; at most ([\d,]+)`, []string{"datar/ingest.MaxUnknown"}},
	{`adopted maxItems (\d+)`, []string{"datar.MaxAdoptedRuns"}},
	{`keeps at most ([\d,]+) keys and IDs per hour, each cut to (\d+) bytes`, []string{"datar.unknownPerHour", "datar.MaxAsked"}},
	{`requested key or ID, cut to (\d+) bytes`, []string{"datar.MaxAsked"}},
	{`key or ID, cut to (\d+) bytes; .* beyond ([\d,]+) per server and hour`, []string{"datar.MaxAsked", "datar.unknownPerHour"}},
	{`value (?:before|after), cut to (\d+) bytes`, []string{"insight.maxCutBytes"}},
	{`at most (\d+) evaluations per flag and second, and keeps the counts of (\d+) days`, []string{"insight.samplesPerSecond", "insight.sampleHours 24"}},
	{`for spans of up to (\d+) days`, []string{"insight.longestOfHours d"}},
	{`(?:At most|makes more than) ([\d,]+) buckets`, []string{"insight.MaxBuckets"}},
	{`can be ([\d,]+) counts, and a CSV (\d+) MiB`, []string{"insight.maxSeriesCounts", "insight.maxTableBytes MiB"}},
	{`there can be (\d+) different ones`, []string{"insight.MaxTerms"}},
	{`the ([\d,]+) buckets`, []string{"eval.buckets"}},
	{`the (\d+) newest versions`, []string{"insight.MaxVersions"}},
	{`estimate from the last (\d+) days`, []string{"insight.ForecastDays"}},
	{`are like the last (\d+)\.`, []string{"insight.ForecastDays"}},
	{`days to look back, from 1 to (\d+)\. Default: (\d+)\.`, []string{"insight.MaxDays", "insight.DefaultDays"}},
	{`days is \d+, want 1 to (\d+)`, []string{"insight.MaxDays"}},
	{`not changed for (\d+) days`, []string{"insight.settleDays"}},
	{`the last (\d+) UTC days`, []string{"insight.sparkDays"}},
	{`newest first, at most (\d+)`, []string{"insight.maxSeriesChanges"}},
	{`all changes, at most ([\d,]+)`, []string{"insight.maxHeads"}},
	{`at most (\d+) events per second`, []string{"insight.tailPerSecond"}},
	{`can be (\d+) listeners, for (\d+) minutes`, []string{"insight.TailListeners", "insight.TailDuration min"}},
	{`[Tt]here are (\d+) listeners`, []string{"insight.TailListeners"}},
	{`Who asks\. From 1 to ([\d,]+)`, []string{"insight.MaxTryEntities"}},
	{`entities has \d+ entries, want 1 to (\d+)`, []string{"insight.MaxTryEntities"}},
	{`respond within (\d+) s`, []string{"handler.pingTimeout s"}},
}

// ofCatalog are the limits in the texts of the pages.
var ofCatalog = []statement{
	{`may still come, up to (\d+) days late`, []string{"datar/ingest.maxWriterAge d"}},
	{`at most (\d+)\. Leave it empty`, []string{"entity.MaxKeyLength"}},
	{`Not a valid key: .* at most (\d+)`, []string{"entity.MaxKeyLength"}},
	{`[Nn]ot asked for (\d+) days`, []string{"ui.latelyDays"}},
	{`(?:evaluations|None) in the last (\d+) days`, []string{"ui.latelyDays"}},
	{`segment in the last (\d+) days`, []string{"ui.overviewDays"}},
	{`From the last (\d+) days`, []string{"insight.ForecastDays"}},
	{`(?:The|the|of) ([\d,]+) buckets`, []string{"eval.buckets"}},
	{`bucket \{bucket\} of ([\d,]+)`, []string{"eval.buckets"}},
	{`at most (\d+) per second`, []string{"insight.tailPerSecond"}},
	{`at most (\d+) at a time`, []string{"insight.TailListeners"}},
	{`a server keeps ([\d,]+) per hour`, []string{"datar.unknownPerHour"}},
}

// ofStrings are the limits in strings of the code.
var ofStrings = []statement{
	{`a batch has at most (\d+) rows`, []string{"datar/ingest.MaxRows"}},
	{`more than (\d+) JSON values`, []string{"budget.MaxValues"}},
	{`name of up to (\d+) ASCII letters`, []string{"datar.maxServerName"}},
	{`key of up to (\d+) bytes`, []string{"recorder.KeySize"}},
	{`_SECRET is shorter than (\d+) bytes`, []string{"app.minSecretBytes"}},
}

// ofOperations has, for each row of the table of limits in docs/operations.md, the limits that it
// states.
var ofOperations = map[string][]string{
	"request body":          {"web.MaxBodyBytes MiB", "datar/ingest.MaxBytes MiB", "web.MaxPprofBodyBytes KiB"},
	"JSON values in a body": {"budget.MaxValues"},
	"memory of all bodies in flight, decoded, those of OFREP included":                                                        {"budget.BodyBytes MiB", "budget.LargeBytes KiB", "budget.maxWait s"},
	"bodies over 16 KiB, batches of more than 1,000 evaluations, and pages, that are decoded, evaluated or rendered at once":  {"budget.LargeBytes KiB", "eval.largeBatch"},
	"requests that read flags, histories or counts at once, pages, tries and forecasts included; not exports and evaluations": {"app.waitingReads", "handler.StoreTimeout s"},
	"clients that disconnect before the end of their body":                                                                    {"budget.disconnectsPerSecond", "budget.maxDisconnectDelay s"},
	"evaluations of a batch": {"eval.maxBatch"},
	"query for all flags while sums of more than 3 days that it needs are missing": {"datar/gormstore.largeBacklog 24", "datar/gormstore.preparingTimeout s"},
	"response to a batch":                                                  {"eval.DefaultAnswerBytes MiB"},
	"memory of such a response":                                            {"eval.MaxBatchBuffer KiB"},
	"memory of debug logs in flight":                                       {"budget.AnswerBytes MiB", "budget.LargeBytes KiB"},
	"constraint, and reason, in a debug log":                               {"entity.maxMessageEnd"},
	"responses that are compressed at once":                                {"web.maxCompressed"},
	"response in the kernel of the server, beyond what it has sent":        {"web.maxUnsent KiB"},
	"memory of an attachment in a response to an evaluation":               {"eval.longEndBytes KiB"},
	"response of OFREP":                                                    {"FLAGR_EVAL_ANSWER_BYTES MiB"},
	"memory of such responses in flight":                                   {"budget.AnswerBytes MiB", "budget.LargeBytes KiB"},
	"memory of responses of OFREP in flight":                               {"budget.AnswerBytes MiB"},
	"response to a try, `POST /flags/{flagID}/try` and the page Try":       {"FLAGR_EVAL_ANSWER_BYTES MiB"},
	"memory of such responses in flight, their compiled patterns included": {"budget.AnswerBytes MiB"},
	"large tries and forecasts at once":                                    {"budget.LargeBytes KiB", "handler.StoreTimeout s"},
	"duration of a batch":                                                  {"eval.batchTimeout s"},
	"query of a GET evaluation":                                            {"FLAGR_EVAL_GET_MAX_URL_BYTES KiB"},
	"profiles of `/debug/pprof` at once, apart from `profile` and `trace`": {"web.maxProfiles"},
	"tags in a request for flags":                                          {"store.maxTagFilter"},
	"pattern of a constraint":                                              {"entity.MaxPatternSize"},
	"patterns of all flags":                                                {"eval.maxPatterns"},
	"pattern from a context, `{p} EREG {q}`":                               {"eval.maxContextPattern", "eval.compileWork"},
	"pattern size × bytes of the value, summed over an evaluation":         {"eval.maxMatchWork"},
	"evaluations at once that use more than 65,536 of that limit, or of flags with more than 512 segments and operators of constraints whose number times the bytes of the context is more than 8 MiB": {"eval.slowWork", "eval.manyParts", "eval.slowReading MiB"},
	"parentheses and operators of a constraint, nested":                         {"entity.maxNesting"},
	"tokens of a constraint":                                                    {"entity.maxTokens", "entity.maxMalformed"},
	"property of a constraint":                                                  {"entity.maxPropertyBytes"},
	"value of a constraint":                                                     {"entity.maxValueBytes MiB", "entity.maxListLength"},
	"JSON in an attachment, nested":                                             {"entity.MaxJSONDepth"},
	"JSON in a stored attachment, nested":                                       {"entity.maxReadDepth"},
	"JSON in the context of an evaluation or a trial, nested":                   {"entity.MaxJSONDepth"},
	"attachment on a page that only shows it":                                   {"ui.maxShownAttachment KiB", "ui.maxShownAttachments MiB"},
	"texts and attachments of a flag that a page edits":                         {"ui.maxEditedTexts"},
	"text, such as a description or an entity ID, on a page that only shows it": {"ui.maxShownText"},
	"table of evaluations below a chart":                                        {"ui.maxTableRows", "ui.maxTableCells"},
	"example of a context on a page":                                            {"ui.maxExampleBytes KiB"},
	"body of a command on a page":                                               {"ui.maxCurlBytes KiB"},
	"texts of a form of the pages":                                              {"ui.maxFormTexts"},
	"page":                                                                      {"ui.maxPageBytes MiB"},
	"memory of such pages and forms in flight":                                  {"budget.AnswerBytes MiB", "ui.pagePart KiB", "budget.LargeBytes KiB"},
	"different terms of a search for flags, `q`":                                {"insight.MaxTerms"},
	"counts of a series of evaluations: lines × buckets":                        {"insight.maxSeriesCounts"},
	"CSV of a series":                                                           {"insight.maxTableBytes MiB"},
	"name of a segment in each row of a CSV of outcomes, reasons or a series":   {"insight.maxRowName"},
	"notes that pages format":                                                   {"ui.maxNotes KiB", "ui.maxNoteLines", "ui.maxNoteMarks", "ui.maxNoteCells", "ui.maxPlainNotes KiB"},
	"request line and headers":                                                  {"web.MaxHeaderBytes KiB"},
	"lines before the body of a request":                                        {"web.MaxHeaderLines"},
	"memory of such lines in flight, beyond 8 KiB of each request":              {"web.FreeHeaderBytes KiB", "budget.HeaderBytes MiB"},
	"states in a response of `GET /flags/{flagID}/snapshots`":                   {"store.maxAnswerBytes MiB"},
	"page of a list of flags":                                                   {"store.maxPageFlags", "store.maxPageBytes MiB"},
	"memory of flags, lists and histories in flight, including what answers about flags and web pages read of them, changes of flags, and responses to tries and of OFREP": {"budget.AnswerBytes MiB", "store.freeStateBytes KiB"},
	"concurrent exports":                    {"handler.maxExports", "handler.maxExports", "handler.exportWait s"},
	"memory of a JSON export":               {"handler.streamBuffer KiB"},
	"JSON exports that are encoded at once": {"handler.streamBuffer KiB"},
	"1 MiB of an export":                    {"handler.exportPart MiB", "handler.exportPatience s"},
	"value in a log line":                   {"app.maxLogValue", "app.maxLogText KiB"},
	"log lines about evaluations":           {"eval.maxLinesPerSecond"},
	"details of queued webhooks":            {"notification.maxDetailBytes MiB"},
	"difference in a webhook: the states before and after with their indents": {"notification.maxDiffBytes MiB"},
	"queued webhooks": {"notification.defaultQueueSize", "notification.maxEntryBytes MiB"},
	"records queued for a broker, for each of kafka, kinesis and pubsub": {"FLAGR_RECORDER_QUEUE_RECORDS", "FLAGR_RECORDER_QUEUE_BYTES MiB"},
	"Datar's counters that are not stored yet":                           {"datar.DefaultMaxKeys"},
	"keys of unknown flags":                                              {"datar.maxUnknown"},
	"response to a batch of counts, as it is stored for repetitions":     {"datar/ingest.packedFrom KiB"},
	"evaluations queued for an explanation":                              {"insight.sampleQueue", "eval.maxSampledContext KiB"},
	"live tails":                                                         {"insight.TailListeners", "insight.tailQueue", "insight.maxTailEntity"},
}

// TestDescriptionStatesTheLimits compares the numbers in swagger.yaml with the limits of the code.
// It also finds numbers in the words of a limit that ofDescription lacks.
func TestDescriptionStatesTheLimits(t *testing.T) {
	t.Parallel()
	var description any
	if err := json.Unmarshal(restapi.FlatSwaggerJSON, &description); err != nil {
		t.Fatal(err)
	}
	var texts []string
	eachText(description, "", func(text string) { texts = append(texts, text) })
	checkStatements(t, "swagger.yaml", texts, ofDescription)

	ofAnyText := regexp.MustCompile(`(?i)\b(?:at most|up to|more than|beyond|cut to|longer than|can be|may have|maxItems|maxLength|exceed|keeps|want 1 to|from 1 to) ` +
		`(?:the |this many )?(\d[\d,]*)\b`)
	noLimit := regexp.MustCompile(`(?i)percent[^.]*|more than 0 percent|up to \d+ minutes after`)
	known := []*regexp.Regexp{noLimit}
	for _, s := range ofDescription {
		known = append(known, regexp.MustCompile(s.pattern))
	}
	for _, text := range texts {
		var covered [][]int
		for _, pattern := range known {
			covered = append(covered, pattern.FindAllStringIndex(text, -1)...)
		}
		for _, found := range ofAnyText.FindAllStringSubmatchIndex(text, -1) {
			if !slices.ContainsFunc(covered, func(c []int) bool { return c[0] <= found[2] && found[3] <= c[1] }) {
				t.Errorf("swagger.yaml has %q in %q, and ofDescription has no limit for it", text[found[0]:found[1]], text)
			}
		}
	}
}

// eachText calls f with each text for people in a part of the description, and with "name keyword
// number" for each keyword that limits a length. Space is single. name is that of the part.
func eachText(part any, name string, f func(string)) {
	switch part := part.(type) {
	case []any:
		for _, element := range part {
			eachText(element, name, f)
		}
	case map[string]any:
		if own, ok := part["name"].(string); ok {
			name = own
		}
		for key, value := range part {
			text, isText := value.(string)
			number, isNumber := value.(float64)
			switch {
			case isText && (key == "description" || key == "summary" || key == "message"):
				f(strings.Join(strings.Fields(text), " "))
			case isNumber && (key == "maxItems" || key == "maxLength"):
				f(name + " " + key + " " + strconv.FormatFloat(number, 'f', -1, 64))
			default:
				eachText(value, key, f)
			}
		}
	}
}

// TestPagesStateTheLimits compares numbers in the texts of the pages with the limits of the code.
func TestPagesStateTheLimits(t *testing.T) {
	t.Parallel()
	checkStatements(t, "pkg/catalog/en.txt", strings.Split(readTop(t, "pkg/catalog/en.txt"), "\n"), ofCatalog)
}

// TestOperationsStateTheLimits compares all numbers in the table of limits in docs/operations.md
// with those of the code, except measured numbers, which follow the word about, and statuses.
func TestOperationsStateTheLimits(t *testing.T) {
	t.Parallel()
	code := newConstants(t)
	measured, other := regexp.MustCompile(`about [\d.]+`), regexp.MustCompile(`\b[45]\d\d\b|\d/\d`)
	number := regexp.MustCompile(`(\d[\d,]*)(?: (KiB|MiB|s|days)\b)?`)
	stated := map[string]bool{}
	for _, cells := range markdownTable(t, "docs/operations.md", "what", "limit", "beyond the limit") {
		what := strings.TrimSpace(cells[0])
		limits, ok := ofOperations[what]
		if stated[what] = true; !ok {
			t.Errorf("ofOperations has no row %q", what)
		}
		var got, want []string
		text := measured.ReplaceAllString(cells[0]+"|"+cells[1]+"|"+other.ReplaceAllString(cells[2], ""), "")
		for _, found := range number.FindAllStringSubmatch(text, -1) {
			got = append(got, strings.ReplaceAll(found[1], ",", "")+" "+found[2])
		}
		for _, limit := range limits {
			_, unit, _ := strings.Cut(limit, " ")
			if unit == "24" {
				unit = "days"
			}
			want = append(want, strconv.FormatInt(code.limit(limit), 10)+" "+unit)
		}
		if !slices.Equal(got, want) {
			t.Errorf("docs/operations.md, %q: the numbers are %q, and the limits %q are %q", what, got, limits, want)
		}
	}
	for what := range ofOperations {
		if !stated[what] {
			t.Errorf("docs/operations.md has no limit for %q", what)
		}
	}
}

// TestStringsStateTheLimits compares numbers in strings of the code: errors, responses, and what
// variables accept.
func TestStringsStateTheLimits(t *testing.T) {
	t.Parallel()
	var texts []string
	for _, file := range sources(t) {
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				texts = append(texts, literal.Value)
			}
			return true
		})
	}
	checkStatements(t, "the code", texts, ofStrings)
}

// checkStatements requires that each statement is in a text, with the numbers of its limits.
func checkStatements(t *testing.T, name string, texts []string, statements []statement) {
	t.Helper()
	code := newConstants(t)
	for _, s := range statements {
		var first []string
		pattern := regexp.MustCompile(s.pattern)
		for _, text := range texts {
			for _, found := range pattern.FindAllStringSubmatch(text, -1) {
				if first == nil {
					first = found
				}
				for i, got := range found[1:] {
					got = strings.ReplaceAll(got, ",", "")
					if s.limits == nil {
						if got != first[i+1] {
							t.Errorf("%s has %q and %q", name, first[0], found[0])
						}
					} else if want := strconv.FormatInt(code.limit(s.limits[i]), 10); got != want {
						t.Errorf("%s has %q, and %s is %s", name, found[0], s.limits[i], want)
					}
				}
			}
		}
		if first == nil {
			t.Errorf("no text of %s matches %s: the test looks for the wrong words", name, s.pattern)
		}
	}
}

// sourceConstants evaluates constants of the sources, also those that packages do not export.
type sourceConstants struct {
	t     *testing.T
	files map[string][]*ast.File // by package below pkg
}

func newConstants(t *testing.T) sourceConstants {
	t.Helper()
	c := sourceConstants{t, map[string][]*ast.File{}}
	for name, file := range sources(t) {
		c.files[path.Dir(name)] = append(c.files[path.Dir(name)], file)
	}
	return c
}

// limit returns a limit in its unit, see statement.
func (c sourceConstants) limit(limit string) int64 {
	c.t.Helper()
	name, unit, _ := strings.Cut(limit, " ")
	var value int64
	if strings.HasPrefix(name, "FLAGR_") {
		value = c.defaultOf(name)
	} else {
		pkg, constantName, _ := strings.Cut(name, ".")
		var exact bool
		if value, exact = constant.Int64Val(constant.ToInt(c.value(pkg, constantName))); !exact {
			c.t.Fatalf("%s is no integer", name)
		}
	}
	divisor, ok := units[unit]
	if !ok || value%divisor != 0 {
		c.t.Fatalf("%s is %d, which is no whole number of %q", name, value, unit)
	}
	return value / divisor
}

// defaultOf returns the default of a variable. Durations are in nanoseconds.
func (c sourceConstants) defaultOf(variable string) int64 {
	c.t.Helper()
	for _, v := range config.Variables() {
		if v.Name != variable {
			continue
		}
		if d, err := time.ParseDuration(v.Default); err == nil {
			return int64(d)
		}
		n, err := strconv.ParseInt(v.Default, 10, 64)
		if err != nil {
			c.t.Fatal(err)
		}
		return n
	}
	c.t.Fatalf("no variable is named %s", variable)
	return 0
}

// value returns a constant of a package, which may be that of a function.
func (c sourceConstants) value(pkg, name string) constant.Value {
	c.t.Helper()
	var found []constant.Value
	for _, file := range c.files[pkg] {
		ast.Inspect(file, func(n ast.Node) bool {
			declaration, ok := n.(*ast.GenDecl)
			if !ok || declaration.Tok != token.CONST {
				return true
			}
			for _, spec := range declaration.Specs {
				v := spec.(*ast.ValueSpec)
				if i := slices.IndexFunc(v.Names, func(ident *ast.Ident) bool { return ident.Name == name }); i >= 0 && i < len(v.Values) {
					found = append(found, c.evaluate(pkg, file, v.Values[i]))
				}
			}
			return true
		})
	}
	if len(found) != 1 {
		c.t.Fatalf("pkg/%s has %d constants %s, want one", pkg, len(found), name)
	}
	return found[0]
}

// evaluate returns the value of a constant expression of numbers and durations.
func (c sourceConstants) evaluate(pkg string, file *ast.File, e ast.Expr) constant.Value {
	c.t.Helper()
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0)
	case *ast.ParenExpr:
		return c.evaluate(pkg, file, e.X)
	case *ast.Ident:
		return c.value(pkg, e.Name)
	case *ast.BinaryExpr:
		x, y := c.evaluate(pkg, file, e.X), c.evaluate(pkg, file, e.Y)
		switch e.Op {
		case token.SHL, token.SHR:
			n, _ := constant.Uint64Val(y)
			return constant.Shift(x, e.Op, uint(n))
		case token.QUO:
			return constant.BinaryOp(x, token.QUO_ASSIGN, y) // of integers
		default:
			return constant.BinaryOp(x, e.Op, y)
		}
	case *ast.SelectorExpr:
		imported := importOf(file, e.X)
		if inPkg, ok := strings.CutPrefix(imported, module+"/pkg/"); ok {
			return c.value(inPkg, e.Sel.Name)
		}
		unit := map[string]time.Duration{"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour}[e.Sel.Name]
		if imported == "time" && unit > 0 {
			return constant.MakeInt64(int64(unit))
		}
	}
	c.t.Fatalf("pkg/%s: the test cannot evaluate the expression at offset %d of %s", pkg, e.Pos(), file.Name.Name)
	return nil
}

// importOf returns the path of the package that an identifier names in a file.
func importOf(file *ast.File, e ast.Expr) string {
	for _, spec := range file.Imports {
		imported, _ := strconv.Unquote(spec.Path.Value)
		name := path.Base(imported)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		if isIdent(e, name) {
			return imported
		}
	}
	return ""
}
