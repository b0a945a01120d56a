package entity

import "encoding/json"

const (
	// MaxJSONDepth is how many levels of objects and lists the JSON of an attachment may have to be stored.
	MaxJSONDepth = 100
	// maxReadDepth is how many levels are read of JSON that was stored without that limit. Decoders refuse 10,000 levels, and
	// what is read here is written again as a part of other documents.
	maxReadDepth = 1000
)

// CheckDepth reports, as ErrInvalid, an attachment that nests deeper than MaxJSONDepth.
func (a Attachment) CheckDepth() error {
	if Deeper(map[string]any(a), MaxJSONDepth) {
		return Invalid("attachment nests more than the %d levels of objects and lists allowed", MaxJSONDepth)
	}
	return nil
}

// Cut reports whether the attachment has as many levels as are read, so that deeper ones are null.
func (a Attachment) Cut() bool { return Deeper(map[string]any(a), maxReadDepth-2) }

// Deeper reports whether a decoded JSON value has more levels of objects and lists than the given number.
func Deeper(value any, levels int) bool {
	switch v := value.(type) {
	case map[string]any:
		if levels == 0 {
			return true
		}
		for _, member := range v {
			if Deeper(member, levels-1) {
				return true
			}
		}
	case []any:
		if levels == 0 {
			return true
		}
		for _, item := range v {
			if Deeper(item, levels-1) {
				return true
			}
		}
	}
	return false
}

// DecodeFlag reads the JSON of a flag, such as that of a snapshot. What nests more than 1,000 levels deep is read as null.
func DecodeFlag(text []byte) (*Flag, error) {
	flag := &Flag{}
	if err := json.Unmarshal(Shallow(text), flag); err != nil {
		return nil, err
	}
	return flag, nil
}

// Shallow returns a JSON text in which each object and list below the first 1,000 levels is null. It returns the text itself
// if there is none.
func Shallow(text []byte) []byte {
	var shallow []byte // nil as long as nothing was left out
	kept, level := 0, 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			if level++; level == maxReadDepth+1 {
				shallow = append(append(shallow, text[kept:i]...), "null"...)
			}
		case '}', ']':
			if level--; level == maxReadDepth {
				kept = i + 1
			}
		}
	}
	if shallow == nil || level > maxReadDepth { // the latter is no JSON
		return text
	}
	return append(shallow, text[kept:]...)
}
