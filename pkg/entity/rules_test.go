package entity_test

import (
	"encoding/json"
	"errors"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

func TestKeysAndTagValues(t *testing.T) {
	t.Parallel()
	longest := strings.Repeat("y", entity.MaxKeyLength)
	for name, test := range map[string]struct {
		text     string
		key, tag bool
	}{
		"all kinds of characters":  {"aZ0_-/.:", true, true},
		"a space":                  {"team a", false, true},
		"longest":                  {longest, true, true},
		"too long":                 {longest + "y", false, false},
		"empty":                    {"", false, false},
		"other characters":         {"bad!", false, false},
		"letters of other tongues": {"é", false, false},
		"new line at the end":      {"a\n", false, false},
		"NUL":                      {"a\x00", false, false},
		"not UTF-8":                {"a\xff", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for check, wanted := range map[string]struct {
				err error
				ok  bool
			}{"key": {entity.CheckKey(test.text), test.key}, "tag": {entity.CheckTagValue(test.text), test.tag}} {
				if (wanted.err == nil) != wanted.ok || wanted.err != nil && !errors.Is(wanted.err, entity.ErrInvalid) {
					t.Errorf("as a %s: %v", check, wanted.err)
				}
			}
		})
	}
}

func TestMessagesNameFieldAndRule(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		`key "has space" is not accepted; want one or more ASCII letters, digits and _ - / . :`:      entity.CheckKey("has space"),
		`key "` + strings.Repeat("x", 64) + `" has 64 bytes, more than the 63 allowed`:               entity.CheckKey(strings.Repeat("x", 64)),
		`value "bad!" is not accepted; want one or more ASCII letters, digits, spaces and _ - / . :`: entity.CheckTagValue("bad!"),
		"notes must not contain the NUL character":                                                   entity.CheckText("notes", "a\x00"),
		"notes is not valid UTF-8": entity.CheckText("notes", "\xc3"),
	} {
		if err == nil || err.Error() != want || !errors.Is(err, entity.ErrInvalid) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	long := entity.CheckKey(strings.Repeat("é", 1<<20)).Error()
	if !strings.HasPrefix(long, `key "éé`) || !strings.HasSuffix(long, `é" has 2097152 bytes, more than the 63 allowed`) || len(long) > 1010 || !utf8.ValidString(long) {
		t.Errorf("got %d bytes: %.2000s", len(long), long)
	}
	if err := entity.CheckText("notes", "any text, é, \n and \U0001F600"); err != nil {
		t.Error(err)
	}
	if err := entity.NotFound("flag %d", 1); err.Error() != "flag 1" || !errors.Is(err, entity.ErrNotFound) || errors.Is(err, entity.ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestGeneratedKeys(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^k[123456789abcdefghijkmnopqrstuvwxyz]{16}$`)
	seen := map[string]bool{}
	characters := map[rune]int{}
	for range 2000 {
		key := entity.GenerateKey()
		if !form.MatchString(key) || seen[key] || entity.CheckKey(key) != nil {
			t.Fatalf("key %q", key)
		}
		seen[key] = true
		for _, c := range key[1:] {
			characters[c]++
		}
	}
	if len(characters) != 34 {
		t.Errorf("only %d characters are used", len(characters))
	}
	for c, n := range characters { // 941 expected, with a standard deviation of 30
		if n < 700 || n > 1200 {
			t.Errorf("%c appears %d times", c, n)
		}
	}
}

// An attachment comes out of the database as it went in, null and large numbers included.
func TestAttachmentInDatabase(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"null":         `null`,
		"empty":        `{}`,
		"large number": `{"n":12345678901234567890}`,
		"nested":       `{"a":[1,{"b":null}],"c":"d"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, column := range []any{text, []byte(text)} {
				var a entity.Attachment
				if err := a.Scan(column); err != nil {
					t.Fatal(err)
				}
				stored, err := a.Value()
				if err != nil || stored != text {
					t.Errorf("got %v, %v", stored, err)
				}
				if (a == "") != (text == "null") {
					t.Errorf("attachment is %#v", a)
				}
			}
		})
	}
	for _, column := range []any{nil, "", []byte{}} {
		a := entity.Attachment(`{"old":true}`)
		if err := a.Scan(column); err != nil || a != "" {
			t.Errorf("%#v became %v, %v", column, a, err)
		}
	}
	for _, column := range []any{"{", "[1]", `"text"`, 7} {
		if err := new(entity.Attachment).Scan(column); err == nil {
			t.Errorf("%v was accepted", column)
		}
	}
}

func TestAttachmentInJSON(t *testing.T) {
	t.Parallel()
	a := entity.Attachment(`{"old":true}`)
	if err := json.Unmarshal([]byte(`{"n":12345678901234567890}`), &a); err != nil {
		t.Fatal(err)
	}
	if difference := cmp.Diff(entity.Attachment(`{"n":12345678901234567890}`), a); difference != "" {
		t.Error(difference)
	}
	for _, text := range []string{`[1]`, `"text"`, `1`} {
		if err := json.Unmarshal([]byte(text), &a); err == nil {
			t.Errorf("%s was accepted", text)
		}
	}
}

// The JSON of a flag is stored in snapshots and read by others: names and order of its fields must
// stay.
func TestFlagInJSON(t *testing.T) {
	t.Parallel()
	const none = `"ID":0,"CreatedAt":"0001-01-01T00:00:00Z","UpdatedAt":"0001-01-01T00:00:00Z","DeletedAt":null,`
	text, err := json.Marshal(entity.Flag{
		Segments: []entity.Segment{{Constraints: []entity.Constraint{{}}, Distributions: []entity.Distribution{{Bitmap: "b"}}}},
		Variants: []entity.Variant{{}},
		Tags:     []entity.Tag{{Value: "web"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{` + none + `"Key":"","Description":"","CreatedBy":"","UpdatedBy":"","Enabled":false,"Segments":[{` +
		none + `"FlagID":0,"Description":"","Rank":0,"RolloutPercent":0,"Constraints":[{` +
		none + `"SegmentID":0,"Property":"","Operator":"","Value":""}],"Distributions":[{` +
		none + `"SegmentID":0,"VariantID":0,"VariantKey":"","Percent":0}]}],"Variants":[{` +
		none + `"FlagID":0,"Key":"","Attachment":null}],"Tags":[{` +
		none + `"Value":"web","Flags":null}],"SnapshotID":0,"Notes":"","DataRecordsEnabled":false,"EntityType":""}`
	if difference := cmp.Diff(want, string(text)); difference != "" {
		t.Error(difference)
	}
}
