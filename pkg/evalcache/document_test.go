package evalcache_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/flagr-datar/flagr-datar/integration_tests/golden"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
	"github.com/flagr-datar/flagr-datar/pkg/evalcache"
)

func TestParseDocumentFillsIDs(t *testing.T) {
	t.Parallel()
	flags, findings, err := evalcache.ParseDocument([]byte(`{"Unknown": 1, "Flags": [
		{"Key": "a", "Enabled": true, "Extra": {}, "Tags": [{"Value": "x"}, {"Value": "y"}],
		 "Variants": [{"Key": "on", "Attachment": {"n": 12345678901234567890}}, {"ID": 1, "Key": "off"}],
		 "Segments": [{"RolloutPercent": 100, "Constraints": [{"Property": "p", "Operator": "EQ", "Value": "1"}],
		               "Distributions": [{"VariantKey": "off", "VariantID": 77, "Percent": 40}, {"VariantKey": "on", "Percent": 60}]}]},
		{"ID": 1, "Key": "b", "Tags": [{"ID": 5, "Value": "x"}], "Variants": [{"ID": 9, "Key": "on"}],
		 "Segments": [{"ID": 3, "Distributions": [{"VariantID": 9, "Percent": 100}]}]},
		{"Key": "c", "Variants": [{"Key": "on"}], "Segments": [{"Distributions": [{"VariantKey": "on", "Percent": 100}]}]}
	]}`))
	if err != nil || len(findings) != 0 {
		t.Fatalf("error %v, findings %v", err, findings)
	}
	type distribution struct{ ID, SegmentID, VariantID uint }
	var got struct {
		Flags, Tags, Segments []uint
		Variants              [][2]uint // id, flag
		Constraints           [][2]uint // id, segment
		Distributions         []distribution
	}
	for _, f := range flags {
		got.Flags = append(got.Flags, f.ID)
		for _, tag := range f.Tags {
			got.Tags = append(got.Tags, tag.ID)
		}
		for _, v := range f.Variants {
			got.Variants = append(got.Variants, [2]uint{v.ID, v.FlagID})
		}
		for _, s := range f.Segments {
			got.Segments = append(got.Segments, s.ID)
			if s.FlagID != f.ID {
				t.Errorf("segment %d refers to flag %d, not %d", s.ID, s.FlagID, f.ID)
			}
			for _, c := range s.Constraints {
				got.Constraints = append(got.Constraints, [2]uint{c.ID, c.SegmentID})
			}
			for _, d := range s.Distributions {
				got.Distributions = append(got.Distributions, distribution{d.ID, d.SegmentID, d.VariantID})
				if d.VariantKey == "" {
					t.Errorf("distribution %d has no variant key", d.ID)
				}
			}
		}
	}
	want := got
	want.Flags = []uint{2, 1, 3}
	want.Tags = []uint{5, 1, 5}
	want.Variants = [][2]uint{{2, 2}, {1, 2}, {9, 1}, {3, 3}}
	want.Segments = []uint{1, 3, 2}
	want.Constraints = [][2]uint{{1, 1}}
	want.Distributions = []distribution{{1, 1, 1}, {2, 1, 2}, {3, 3, 9}, {4, 2, 3}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := flags[0].Variants[0].Attachment; n != `{"n":12345678901234567890}` {
		t.Errorf("number in the attachment became %v", n)
	}
}

func TestParseDocumentFindings(t *testing.T) {
	t.Parallel()
	const (
		fine    = `"Variants": [{"Key": "on"}], "Segments": [{"Distributions": [{"VariantKey": "on", "Percent": 100}]}]`
		failure = evalcache.SeverityError
		warning = evalcache.SeverityWarning
	)
	segment := func(parts string) string {
		return `{"Key": "a", "Variants": [{"Key": "on"}], "Segments": [{` + parts + `}]}`
	}
	shared := `"Distributions": [{"VariantKey": "on", "Percent": 100}]`
	for _, test := range []struct {
		name, flags string
		want        []evalcache.Finding
	}{
		{"nothing", `{"Key": "a", ` + fine + `}`, nil},
		{"no flag key", `{"Key": "a", ` + fine + `}, {` + fine + `}`, []evalcache.Finding{{failure, "#2", "", "key is missing"}}},
		{"duplicate flag key", `{"Key": "a", ` + fine + `}, {"Key": "a", ` + fine + `}`, []evalcache.Finding{{failure, "a", "", "key is used by flags #1 and #2"}}},
		{"duplicate flag id", `{"ID": 3, "Key": "a", ` + fine + `}, {"ID": 3, "Key": "b", ` + fine + `}`, []evalcache.Finding{{failure, "b", "", "id 3 is used at #1 and #2"}}},
		{"id too large", `{"ID": 9223372036854775808, "Key": "a", ` + fine + `}`, []evalcache.Finding{{failure, "a", "", "id 9223372036854775808 is too large"}}},
		{
			"variant keys", `{"Key": "a", "Variants": [{"Key": "on"}, {}, {"Key": "on"}], "Segments": [{` + shared + `}]}`,
			[]evalcache.Finding{{failure, "a", "variant 2", "key is missing"}, {failure, "a", "variant 3", `key "on" is that of variant 1, too`}},
		},
		{
			"variant keys told apart by ids", `{"Key": "a", "Variants": [{"ID": 1, "Key": "on"}, {"ID": 2, "Key": "on"}], "Segments": [{"Distributions": [
				{"VariantKey": "on", "VariantID": 2, "Percent": 40}, {"VariantKey": "on", "VariantID": 1, "Percent": 60}]}]}`,
			[]evalcache.Finding{{warning, "a", "variant 2", `key "on" is that of variant 1, too`}},
		},
		{
			"variant keys not told apart", `{"Key": "a", "Variants": [{"ID": 1, "Key": "on"}, {"ID": 2, "Key": "on"}], "Segments": [{"Distributions": [
				{"VariantKey": "on", "VariantID": 3, "Percent": 40}, {"VariantKey": "on", "Percent": 60}]}]}`,
			[]evalcache.Finding{
				{warning, "a", "variant 2", `key "on" is that of variant 1, too`},
				{failure, "a", "segment 1, distribution 1", `the flag has several variants with key "on": VariantID must say which`},
				{failure, "a", "segment 1, distribution 2", `the flag has several variants with key "on": VariantID must say which`},
			},
		},
		{
			"one of the variants without an id", `{"Key": "a", "Variants": [{"ID": 1, "Key": "on"}, {"Key": "on"}], "Segments": [{"Distributions": [{"VariantKey": "on", "VariantID": 1, "Percent": 100}]}]}`,
			[]evalcache.Finding{{failure, "a", "variant 2", `key "on" is that of variant 1, too`}},
		},
		{"rollout", segment(`"RolloutPercent": 101, ` + shared), []evalcache.Finding{{failure, "a", "segment 1", "rollout percent is 101, more than 100"}}},
		{"percent", segment(`"Distributions": [{"VariantKey": "on", "Percent": 101}]`), []evalcache.Finding{{failure, "a", "segment 1, distribution 1", "percent is 101, more than 100"}}},
		{"sum", segment(`"Distributions": [{"VariantKey": "on", "Percent": 99}]`), []evalcache.Finding{{failure, "a", "segment 1", "percents of the distributions sum to 99, not 100"}}},
		{
			"unknown variants", segment(`"Distributions": [{"VariantKey": "off", "Percent": 40}, {"VariantID": 8, "Percent": 40}, {"Percent": 20}]`),
			[]evalcache.Finding{
				{failure, "a", "segment 1, distribution 1", `the flag has no variant with key "off"`},
				{failure, "a", "segment 1, distribution 2", "the flag has no variant with id 8"},
				{failure, "a", "segment 1, distribution 3", "variant key is missing"},
			},
		},
		{"operator", segment(`"Constraints": [{"Property": "p", "Operator": "LIKE", "Value": "1"}], ` + shared), []evalcache.Finding{{failure, "a", "segment 1, constraint 1", `operator "LIKE" is not accepted; want one of EQ, NEQ, LT, LTE, GT, GTE, EREG, NEREG, IN, NOTIN, CONTAINS, NOTCONTAINS`}}},
		{
			"pattern", segment(`"Constraints": [{"Property": "p", "Operator": "EREG", "Value": "\"[\""}], ` + shared),
			[]evalcache.Finding{{warning, "a", "segment 1, constraint 1", "pattern cannot be used, so that the comparison never holds: error parsing regexp: missing closing ]: `[`"}},
		},
		{
			"pattern too large", segment(`"Constraints": [{"Property": "p", "Operator": "EREG", "Value": "\"(a{1000}){40}\""}, {"Property": "p", "Operator": "EREG", "Value": "\"` + strings.Repeat("a{1000}", 40) + `\""}], ` + shared),
			[]evalcache.Finding{
				{warning, "a", "segment 1, constraint 1", "pattern cannot be used, so that the comparison never holds: error parsing regexp: invalid repeat count: `{40}`"},
				{warning, "a", "segment 1, constraint 2", "never matches: pattern is too large: at most 32768 instructions are allowed, with repetitions written out, where a Unicode class counts 100 and a class in brackets that ignores case counts 1000, and one more for 16 characters of each range; IN compares a long list of strings faster"},
			},
		},
		{
			"property too long", segment(`"Constraints": [{"Property": "` + strings.Repeat("p", 1025) + `", "Operator": "EQ", "Value": "1"}], ` + shared),
			[]evalcache.Finding{{warning, "a", "segment 1, constraint 1", "never matches: property has 1025 bytes, more than the 1024 allowed"}},
		},
		{"empty flag", `{"Key": "a"}`, []evalcache.Finding{{warning, "a", "", "has no variants"}, {warning, "a", "", "has no segments"}}},
		{"no distributions", segment(``), []evalcache.Finding{{warning, "a", "segment 1", "has no distributions, so no entity gets a variant"}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			flags, findings, err := evalcache.ParseDocument([]byte(`{"Flags": [` + test.flags + `]}`))
			if diff := cmp.Diff(test.want, findings); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			blocked := false
			for _, finding := range test.want {
				if finding.Severity == failure {
					blocked = true
					if err == nil || !strings.Contains(err.Error(), finding.String()) {
						t.Errorf("error %v leaves out: %s", err, finding)
					}
				}
			}
			if errors.Is(err, evalcache.ErrDocument) != blocked || (flags == nil) != blocked {
				t.Errorf("got %d flags, error %v", len(flags), err)
			}
		})
	}
}

func TestParseDocumentShapes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, document string
		ok             bool
	}{
		{"no flags", `{"Flags": []}`, true},
		{"null flags", `{"Flags": null}`, true},
		{"empty", ``, false},
		{"null", `null`, false},
		{"list", `[]`, false},
		{"without flags", `{}`, false},
		{"cut off", `{"Flags": [{"Key": "a"`, false},
		{"two documents", `{"Flags": []} {"Flags": []}`, false},
		{"flag that is none", `{"Flags": ["a"]}`, false},
		{"negative percent", `{"Flags": [{"Key": "a", "Segments": [{"RolloutPercent": -1}]}]}`, false},
		{"attachment that is no object", `{"Flags": [{"Key": "a", "Variants": [{"Key": "on", "Attachment": 1}]}]}`, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if _, _, err := evalcache.ParseDocument([]byte(test.document)); (err == nil) != test.ok || err != nil && !errors.Is(err, evalcache.ErrDocument) {
				t.Errorf("got error %v", err)
			}
		})
	}
}

func FuzzParseDocument(f *testing.F) {
	recorded, err := os.ReadFile(golden.Path("flags.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(recorded[:0])
	f.Add([]byte(firstDocument))
	f.Add([]byte(`{"Flags": [{"ID": 1, "Key": "a", "Enabled": true, "Variants": [{"Key": "on"}], "Tags": [{"Value": "x"}], "Segments": [{"RolloutPercent": 50,
		"Constraints": [{"Property": "p", "Operator": "EREG", "Value": "/a"}], "Distributions": [{"VariantKey": "on", "Percent": 100}]}]}]}`))
	f.Fuzz(func(t *testing.T, document []byte) {
		flags, findings, err := evalcache.ParseDocument(document)
		if err != nil && !errors.Is(err, evalcache.ErrDocument) {
			t.Errorf("got error %v", err)
		}
		for _, finding := range findings {
			if err == nil && finding.Severity == evalcache.SeverityError {
				t.Errorf("accepted in spite of %s", finding)
			}
		}
		eval.Compile(flags)
		for _, flag := range flags {
			if flag.ID == 0 || flag.Key == "" {
				t.Errorf("flag with id %d and key %q", flag.ID, flag.Key)
			}
		}
	})
}
