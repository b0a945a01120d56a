package handler

import (
	"cmp"
	"encoding/json"
	stderrors "errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"github.com/go-openapi/errors"
)

// plain returns err with the status and code that go-openapi gives it, and with a message that
// contains the field as the client wrote it, the value, and what is accepted.
func plain(err error) error {
	var composite *errors.CompositeError
	for stderrors.As(err, &composite) {
		if len(composite.Errors) == 0 {
			return err
		}
		err = composite.Errors[0] // go-openapi also responds with the first one
	}
	var validation *errors.Validation
	if stderrors.As(err, &validation) && validation.Code() >= errors.InvalidTypeCode { // lower codes are about media types
		return errors.New(validation.Code(), "%s", validationMessage(validation))
	}
	var parse *errors.ParseError
	if stderrors.As(err, &parse) && parse.In == "body" {
		return errors.New(parse.Code(), "%s", jsonMessage("the request body", parse.Reason))
	}
	return err
}

// validationMessage describes a parameter or field that breaks the schema.
func validationMessage(v *errors.Validation) string {
	rule := strings.TrimPrefix(v.Error(), v.Name+" in "+v.In)
	where := field(v.Name, v.In)
	switch v.Code() {
	case errors.RequiredFailCode:
		return where + " is required"
	case errors.EnumFailCode:
		accepted := make([]string, len(v.Values))
		for i, value := range v.Values {
			accepted[i] = fmt.Sprint(value)
		}
		return notAccepted(where, v.Value, "one of "+strings.Join(accepted, ", "))
	case errors.InvalidTypeCode:
		_, kind, _ := strings.Cut(rule, "must be of type ")
		kind, _, _ = strings.Cut(kind, ",")
		kind, _, _ = strings.Cut(kind, ":")
		if noun := nounOf[kind]; noun != "" {
			value := v.Value
			if n, converted := value.(int64); converted && n == 0 { // of a list in a query: not what the client sent
				value = nil
			}
			return notAccepted(where, value, noun)
		}
	}
	rule = plainRules.Replace(rule)
	switch value := valueOf(v.Value); v.Code() {
	case errors.MaxFailCode, errors.MinFailCode, errors.MultipleOfFailCode, errors.PatternFailCode:
		if value != "" {
			rule += ", not " + value
		}
	}
	return where + rule
}

func notAccepted(where string, value any, want string) string {
	if shown := valueOf(value); shown != "" {
		where += ": " + shown
	}
	return where + " is not accepted; want " + want
}

// field names what a client sent: a body field by its path, everything else with its location.
func field(name, in string) string {
	switch {
	case in != "body" && in != "":
		return name + " in " + in
	case name == "" || name == "body":
		return "the request body"
	}
	return strings.TrimPrefix(name, "body.")
}

// valueOf quotes a string and formats a number or a boolean. It returns "" for all other values.
func valueOf(value any) string {
	switch v := value.(type) {
	case string:
		return fmt.Sprintf("%q", shortened(v))
	case bool, int, int32, int64, uint32, uint64, float32, float64, json.Number:
		return fmt.Sprintf("%v", v)
	}
	if v := reflect.ValueOf(value); v.Kind() == reflect.String {
		return fmt.Sprintf("%q", shortened(v.String()))
	}
	return ""
}

// nounOf maps go-openapi's names of types to those in messages.
var nounOf = map[string]string{
	"int64": "an integer of 64 bits", "int32": "an integer of 32 bits", "integer": "an integer", "float64": "a number", "number": "a number",
	"bool": "true or false", "boolean": "true or false", "string": "a string", "array": "an array", "object": "an object",
	"strfmt.DateTime": "a time such as 2026-01-31T18:00:00Z", "date-time": "a time such as 2026-01-31T18:00:00Z",
}

var plainRules = strings.NewReplacer(
	"should be at least 1 chars long", "must have at least 1 character",
	"should be at least", "must have at least",
	"should be at most", "must have at most",
	" chars long", " characters",
	"should be greater than or equal to", "must be at least",
	"should be less than or equal to", "must be at most",
	"should be greater than", "must be greater than",
	"should be less than", "must be less than",
	"should be a multiple of", "must be a multiple of",
	"should have at least 1 items", "must have at least 1 item",
	"should have", "must have",
	"should match", "must match",
	"shouldn't contain duplicates", "must not contain duplicates",
	"is a forbidden property", "is not a field here",
)

// jsonMessage describes a text that is not JSON, or JSON of another shape than expected. It keeps
// the text that wraps the decoder's error, such as a line number.
func jsonMessage(what string, err error) string {
	within := func(cause error) string { return strings.TrimSuffix(err.Error(), cause.Error()) }
	or := func(place string) string { return cmp.Or(strings.TrimSuffix(place, ": "), what) }
	var mismatch *json.UnmarshalTypeError
	switch {
	case stderrors.As(err, &mismatch):
		place := within(mismatch)
		if mismatch.Field == "" {
			return or(place) + " is " + received(mismatch.Value) + "; want " + wanted(mismatch.Type)
		}
		return place + mismatch.Field + " is " + received(mismatch.Value) + "; want " + wanted(mismatch.Type)
	case stderrors.Is(err, io.EOF):
		return or(within(io.EOF)) + " is empty; want JSON"
	case stderrors.Is(err, io.ErrUnexpectedEOF):
		return or(within(io.ErrUnexpectedEOF)) + " ends in the middle of its JSON"
	}
	if syntax := (*json.SyntaxError)(nil); stderrors.As(err, &syntax) || stderrors.Is(err, errMoreJSON) {
		return what + " is not valid JSON: " + shortened(err.Error())
	}
	return what + ": " + shortened(err.Error())
}

// received describes a value as encoding/json does: by its kind and, for some numbers, by the
// number.
func received(value string) string {
	kind, number, _ := strings.Cut(value, " ")
	switch {
	case number != "":
		return shortened(number)
	case kind == "bool":
		return "a boolean"
	case kind == "array" || kind == "object":
		return "an " + kind
	}
	return "a " + kind
}

func wanted(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.ConvertibleTo(reflect.TypeFor[time.Time]()) {
		return nounOf["date-time"]
	}
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map, reflect.Interface:
		return "an object"
	default:
		return fmt.Sprintf("an integer of %d bits", t.Bits())
	}
}
