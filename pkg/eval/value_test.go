package eval_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
	"github.com/flagr-datar/flagr-datar/pkg/eval"
)

func TestValues(t *testing.T) {
	t.Parallel()
	type variants map[string]string // attachments as JSON by key; empty: none
	for name, tc := range map[string]struct {
		tags     []string
		variants variants
		want     eval.ValueType
		values   map[string]string // JSON by key; "!" stands for an error
		warnings []string          // parts of them
	}{
		"keys":                         {variants: variants{"a": "", "b": "{}"}, want: eval.ValueString, values: map[string]string{"a": `"a"`, "b": `"b"`}},
		"no variants":                  {want: eval.ValueString},
		"on and off":                   {variants: variants{"on": "", "OFF": "{}"}, want: eval.ValueBoolean, values: map[string]string{"on": "true", "OFF": "false"}},
		"true and False":               {variants: variants{"true": "", "False": ""}, want: eval.ValueBoolean, values: map[string]string{"true": "true", "False": "false"}},
		"on with an attachment":        {variants: variants{"on": `{"a":1}`, "off": ""}, want: eval.ValueObject, values: map[string]string{"on": `{"a":1}`, "off": "{}"}},
		"on and another":               {variants: variants{"on": "", "dim": ""}, want: eval.ValueString, values: map[string]string{"on": `"on"`}},
		"attachments":                  {variants: variants{"a": `{"n":1.0,"h":"<b>"}`, "b": ""}, want: eval.ValueObject, values: map[string]string{"a": `{"h":"<b>","n":1.0}`, "b": "{}"}},
		"strings":                      {variants: variants{"a": `{"value":"x"}`, "b": `{"value":"y","z":1}`}, want: eval.ValueString, values: map[string]string{"a": `"x"`, "b": `"y"`}},
		"integers":                     {variants: variants{"a": `{"value":10}`, "b": `{"value":9007199254740993}`}, want: eval.ValueInteger, values: map[string]string{"a": "10", "b": "9007199254740993"}},
		"floats":                       {variants: variants{"a": `{"value":10}`, "b": `{"value":12.50}`, "c": `{"value":1e3}`}, want: eval.ValueFloat, values: map[string]string{"a": "10.0", "b": "12.50", "c": "1e3"}},
		"values that are absent":       {variants: variants{"a": `{"value":true}`, "b": `{"value":null}`, "c": ""}, want: eval.ValueBoolean, values: map[string]string{"a": "true", "b": "", "c": ""}},
		"only null":                    {variants: variants{"a": `{"value":null}`}, want: eval.ValueMixed, values: map[string]string{"a": ""}},
		"lists are objects":            {variants: variants{"a": `{"value":[1]}`, "b": `{"value":{}}`}, want: eval.ValueObject, values: map[string]string{"a": "[1]", "b": "{}"}},
		"mixed":                        {variants: variants{"a": `{"value":1}`, "b": `{"value":"x"}`}, want: eval.ValueMixed, values: map[string]string{"a": "1", "b": `"x"`}, warnings: []string{"different types: integer, string"}},
		"tag string":                   {tags: []string{"ofrep:string"}, variants: variants{"on": `{"value":1}`}, want: eval.ValueString, values: map[string]string{"on": `"on"`}},
		"tag object":                   {tags: []string{"web", "ofrep:object"}, variants: variants{"on": "", "off": `{"value":1}`}, want: eval.ValueObject, values: map[string]string{"on": "{}", "off": `{"value":1}`}},
		"tag boolean":                  {tags: []string{"ofrep:boolean"}, variants: variants{"a": `{"value":false}`, "ON": `{"x":1}`, "b": `{"value":"true"}`, "c": ""}, want: eval.ValueBoolean, values: map[string]string{"a": "false", "ON": "true", "b": "true", "c": "!"}, warnings: []string{"variant c is not of type boolean"}},
		"tag integer":                  {tags: []string{"ofrep:integer"}, variants: variants{"7": "", "a": `{"value":-3}`, "b": `{"value":1.5}`, "c": `{"value":true}`, "05": "", "+1": "", "\"1\"": ""}, want: eval.ValueInteger, values: map[string]string{"7": "7", "a": "-3", "b": "!", "c": "!", "05": "!", "+1": "!", "\"1\"": "!"}, warnings: []string{"variant +1", "variant 05", "variant b", "variant c", `variant "1"`}},
		"tag float":                    {tags: []string{"ofrep:float"}, variants: variants{"7": "", "a": `{"value":1.50}`, "NaN": ""}, want: eval.ValueFloat, values: map[string]string{"7": "7.0", "a": "1.50", "NaN": "!"}, warnings: []string{"variant NaN"}},
		"two tags":                     {tags: []string{"ofrep:string", "ofrep:boolean"}, variants: variants{"on": ""}, want: eval.ValueString, values: map[string]string{"on": `"on"`}, warnings: []string{"tag ofrep:boolean has no effect together with tag ofrep:string"}},
		"a tag that names no type":     {tags: []string{"ofrep:bool"}, variants: variants{"a": ""}, want: eval.ValueString, warnings: []string{"tag ofrep:bool names no type"}},
		"default":                      {tags: []string{"ofrep:default:off"}, variants: variants{"on": "", "off": ""}, want: eval.ValueBoolean},
		"a default that is no variant": {tags: []string{"ofrep:default:x"}, variants: variants{"on": ""}, want: eval.ValueBoolean, warnings: []string{"tag ofrep:default:x names no variant"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &entity.Flag{}
			for _, tag := range tc.tags {
				f.Tags = append(f.Tags, entity.Tag{Value: tag})
			}
			for key, text := range tc.variants {
				var a entity.Attachment
				if text != "" {
					if err := json.Unmarshal([]byte(text), &a); err != nil {
						t.Fatal(err)
					}
				}
				f.Variants = append(f.Variants, entity.Variant{Key: key, Attachment: a})
			}
			slices.SortFunc(f.Variants, func(a, b entity.Variant) int { return strings.Compare(a.Key, b.Key) })
			values := eval.ValuesOf(f)
			if values.Type != tc.want {
				t.Errorf("type is %s, want %s", values.Type, tc.want)
			}
			for i := range f.Variants {
				want, ok := tc.values[f.Variants[i].Key]
				got := values.Of(&f.Variants[i])
				if got.Err != nil {
					got.JSON = "!"
				}
				if ok && got.JSON != want {
					t.Errorf("variant %s is %q, want %q", f.Variants[i].Key, got.JSON, want)
				}
			}
			warnings := strings.Join(values.Warnings(), "\n")
			for _, part := range tc.warnings {
				if !strings.Contains(warnings, part) {
					t.Errorf("no warning has %q: %q", part, warnings)
				}
			}
			if len(values.Warnings()) != len(tc.warnings) {
				t.Errorf("%d warnings, want %d: %q", len(values.Warnings()), len(tc.warnings), warnings)
			}
			if hasDefault := slices.Contains(tc.tags, "ofrep:default:off"); hasDefault != (values.Default != nil && values.Default.Key == "off") {
				t.Errorf("default is %v", values.Default)
			}
		})
	}
}
