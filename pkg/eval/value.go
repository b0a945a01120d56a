package eval

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

// ValueType is the type of a flag's value in OpenFeature, which types flags and not variants.
type ValueType uint8

// The types of values.
const (
	// ValueMixed is the type of a flag whose variants have no value, or values of different types.
	ValueMixed ValueType = iota
	ValueBoolean
	ValueString
	ValueInteger
	ValueFloat
	ValueObject
)

// String returns the type's name in tags, such as boolean, or mixed for ValueMixed.
func (t ValueType) String() string {
	return [...]string{"mixed", "boolean", "string", "integer", "float", "object"}[t]
}

const (
	valueTagPrefix   = "ofrep:"
	defaultTagPrefix = valueTagPrefix + "default:"
	valueMember      = "value" // of an attachment
)

// valueRule is where the value of a variant comes from.
type valueRule uint8

const (
	valueIsKey valueRule = iota
	valueIsAttachment
	valueIsMember  // of the attachment, unchanged
	valueIsSwitch  // of the variant's key: on, off, true, false
	valueIsTagged  // the attachment's member or the key, parsed as the type of a tag
	valueTypeCount = int(ValueObject) + 1
)

// Values has the values of a flag's variants in OpenFeature. The first rule that fits all variants
// is used: a type from a tag such as ofrep:boolean; the member value of attachments; booleans for
// variants named on, off, true or false without attachments; the attachments; the keys.
type Values struct {
	// Type is the type of every variant's value.
	Type ValueType
	// Default is the variant whose value is used if no variant is assigned, or nil if there is
	// none. The tag ofrep:default:KEY names it.
	Default *entity.Variant

	rule     valueRule
	float    bool // whole numbers are written with .0
	warnings []string
}

// Value is the value of one variant.
type Value struct {
	// JSON is the JSON of the value, or empty if the variant has no value, or one of another type
	// than the flag.
	JSON string
	// Attachment is the variant's attachment for the metadata of a response. It is empty if the
	// attachment has no more than the value, or more than 4 KiB.
	Attachment entity.Attachment
	// Err is why the variant cannot be parsed as the type of a tag.
	Err error
}

// ValuesOf returns the values of a flag's variants.
func ValuesOf(f *entity.Flag) *Values {
	v := &Values{}
	tagged := v.readTags(f)
	switch {
	case tagged:
	case slices.ContainsFunc(f.Variants, hasValueMember):
		v.rule = valueIsMember
		v.typeOfMembers(f.Variants)
	case len(f.Variants) > 0 && !slices.ContainsFunc(f.Variants, func(x entity.Variant) bool {
		_, isSwitch := switchOf(x.Key)
		return !isSwitch || x.Attachment.HasMembers()
	}):
		v.rule, v.Type = valueIsSwitch, ValueBoolean
	case slices.ContainsFunc(f.Variants, func(x entity.Variant) bool { return x.Attachment.HasMembers() }):
		v.rule, v.Type = valueIsAttachment, ValueObject
	default:
		v.rule, v.Type = valueIsKey, ValueString
	}
	return v
}

// Warnings reports what is doubtful: two tags for the type, tags that name no type or no variant,
// values of different types.
func (v *Values) Warnings() []string { return v.warnings }

// readTags reports whether a tag names the type.
func (v *Values) readTags(f *entity.Flag) (tagged bool) {
	var typeTag, defaultTag string
	for i := range f.Tags {
		tag := f.Tags[i].Value
		name, ok := strings.CutPrefix(tag, valueTagPrefix)
		if !ok {
			continue
		}
		if key, ok := strings.CutPrefix(tag, defaultTagPrefix); ok {
			at := slices.IndexFunc(f.Variants, func(x entity.Variant) bool { return x.Key == key })
			switch {
			case at < 0:
				v.warn("tag %s names no variant of the flag", tag)
			case v.Default != nil:
				v.warn("tag %s has no effect together with tag %s", tag, defaultTag)
			default:
				v.Default, defaultTag = &f.Variants[at], tag
			}
			continue
		}
		t, ok := typeOfTag(name)
		switch {
		case !ok:
			v.warn("tag %s names no type; want boolean, string, integer, float or object", tag)
		case tagged:
			v.warn("tag %s has no effect together with tag %s", tag, typeTag)
		default:
			v.Type, typeTag, tagged = t, tag, true
		}
	}
	if !tagged {
		return false
	}
	switch v.Type {
	case ValueString:
		v.rule = valueIsKey
	case ValueObject:
		v.rule = valueIsAttachment
	default:
		v.rule, v.float = valueIsTagged, v.Type == ValueFloat
		for i := range f.Variants {
			if err := v.Of(&f.Variants[i]).Err; err != nil {
				v.warn("%s", err)
			}
		}
	}
	return true
}

func typeOfTag(name string) (ValueType, bool) {
	for t := ValueBoolean; int(t) < valueTypeCount; t++ {
		if name == t.String() {
			return t, true
		}
	}
	return ValueMixed, false
}

func (v *Values) warn(format string, args ...any) {
	v.warnings = append(v.warnings, fmt.Sprintf(format, args...))
}

// typeOfMembers returns the type of all values of attachments.
func (v *Values) typeOfMembers(variants []entity.Variant) {
	var found []ValueType
	for i := range variants {
		value := memberOf(&variants[i])
		if value == "" {
			continue
		}
		t := typeOfJSON(value)
		if t == ValueFloat {
			v.float = true
		}
		if !slices.Contains(found, t) {
			found = append(found, t)
		}
	}
	if v.float {
		found = slices.DeleteFunc(found, func(t ValueType) bool { return t == ValueInteger })
	}
	switch {
	case len(found) == 1:
		v.Type = found[0]
	case len(found) > 1:
		names := make([]string, len(found))
		for i, t := range found {
			names[i] = t.String()
		}
		v.warn("values of the variants have different types: %s", strings.Join(names, ", "))
	}
}

// typeOfJSON returns the type of a value other than null. Lists are objects, because OpenFeature
// calls every structure an object.
func typeOfJSON(value string) ValueType {
	switch value[0] {
	case 't', 'f':
		return ValueBoolean
	case '"':
		return ValueString
	case '{', '[':
		return ValueObject
	}
	if strings.ContainsAny(value, ".eE") {
		return ValueFloat
	}
	return ValueInteger
}

func hasValueMember(x entity.Variant) bool { return x.Attachment.Member(valueMember) != "" }

// memberOf returns the JSON of the value member of the attachment, or an empty string if it is
// missing or null.
func memberOf(variant *entity.Variant) string {
	if value := variant.Attachment.Member(valueMember); value != "null" {
		return value
	}
	return ""
}

// switchOf parses the key of a variant as a boolean.
func switchOf(key string) (on, ok bool) {
	switch strings.ToLower(key) {
	case "on", "true":
		return true, true
	case "off", "false":
		return false, true
	default:
		return false, false
	}
}

// maxMetadataBytes is the maximum length of an attachment in the metadata of a response.
const maxMetadataBytes = 4 << 10

// Of returns the value of a variant of the flag.
func (v *Values) Of(variant *entity.Variant) Value {
	value := v.of(variant)
	if a := variant.Attachment; v.rule != valueIsAttachment && len(a) <= maxMetadataBytes && hasMore(a) {
		value.Attachment = a
	}
	return value
}

// hasMore reports whether an attachment has other members than the value.
func hasMore(a entity.Attachment) bool {
	value := a.Member(valueMember)
	return a.HasMembers() && (value == "" || len(a) > len(`{"":}`)+len(valueMember)+len(value))
}

func (v *Values) of(variant *entity.Variant) Value {
	switch v.rule {
	case valueIsAttachment:
		if !variant.Attachment.HasMembers() {
			return Value{JSON: "{}"}
		}
		return Value{JSON: variant.Attachment.JSON()}
	case valueIsMember:
		value := memberOf(variant)
		if value != "" && v.float && typeOfJSON(value) == ValueInteger {
			value += ".0"
		}
		return Value{JSON: value}
	case valueIsSwitch:
		on, _ := switchOf(variant.Key)
		return Value{JSON: strconv.FormatBool(on)}
	case valueIsTagged:
		return v.tagged(variant)
	default:
		return Value{JSON: string(entity.AppendString(nil, variant.Key))}
	}
}

// tagged parses the attachment's member, or else the key, as the type of a tag.
func (v *Values) tagged(variant *entity.Variant) Value {
	value := memberOf(variant)
	if value == "" {
		value = string(entity.AppendString(nil, variant.Key))
	}
	if text, ok := readAs(v.Type, value); ok {
		return Value{JSON: text}
	}
	return Value{Err: fmt.Errorf("variant %s is not of type %s, which the tag %s%s demands", variant.Key, v.Type, valueTagPrefix, v.Type)}
}

// readAs returns the JSON of a value as a boolean, an integer or a float, also of a string with
// one; numbers keep their notation.
func readAs(t ValueType, value string) (_ string, ok bool) {
	found, text := typeOfJSON(value), value
	if found == ValueString {
		text, _ = entity.DecodeJSON(value).(string)
	}
	if t == ValueBoolean {
		if found == ValueString {
			on, ok := switchOf(text)
			return strconv.FormatBool(on), ok
		}
		return text, found == ValueBoolean
	}
	if found == ValueBoolean || found == ValueObject {
		return "", false
	}
	var number json.Number
	if json.Unmarshal([]byte(text), &number) != nil || number.String() != text { // also accepts quoted numbers
		return "", false
	}
	whole := !strings.ContainsAny(text, ".eE")
	if t == ValueInteger {
		_, err := strconv.ParseInt(text, 10, 64)
		return text, err == nil
	}
	if whole {
		text += ".0"
	}
	return text, true
}
