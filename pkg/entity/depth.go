package entity

const (
	// MaxJSONDepth is the maximum number of levels of objects and lists in an attachment.
	MaxJSONDepth = 100
	// maxReadDepth is the number of levels that are read of JSON that was stored without that
	// limit. Decoders reject 10,000 levels, and JSON that is read here is written again as part of
	// other documents.
	maxReadDepth = 1000
)

// CheckDepth reports, as ErrInvalid, an attachment that nests deeper than MaxJSONDepth.
func (a Attachment) CheckDepth() error {
	if a.deeper(MaxJSONDepth) {
		return Wrong("api.attachment.deep", "most", MaxJSONDepth)
	}
	return nil
}

// Cut reports whether the attachment has the maximum number of levels that are read, so that deeper
// ones are null.
func (a Attachment) Cut() bool { return a.deeper(maxReadDepth - 2) }

// deeper reports whether the attachment has more levels of objects and lists than the given number.
func (a Attachment) deeper(levels int) bool {
	level := 0
	for at, step := nextBracket(string(a), 0); step != 0; at, step = nextBracket(string(a), at+1) {
		if level += step; level > levels {
			return true
		}
	}
	return false
}

// nextBracket returns the place of the next bracket outside of strings, from a place outside of
// strings. step is 1 for a bracket that opens, -1 for one that closes, and 0 if there is none.
func nextBracket(text string, start int) (at, step int) {
	for i := start; i < len(text); i++ {
		switch text[i] {
		case '"':
			i++
			for i += unescaped(text[i:]); i < len(text) && text[i] != '"'; i += unescaped(text[i:]) {
				i = min(i+specialLength(text[i]), len(text))
			}
		case '{', '[':
			return i, 1
		case '}', ']':
			return i, -1
		}
	}
	return len(text), 0
}

// Deeper reports whether a decoded JSON value has more levels of objects and lists than the given
// number.
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

// ByteOrderMark is what some editors and libraries write at the start of a text. All readers of
// JSON skip it.
const ByteOrderMark = "\xef\xbb\xbf"

// Shallow returns JSON in which each object and list below the first 1,000 levels is null. It
// returns the same JSON if there is none.
func Shallow(text []byte) []byte {
	if shallow := cut(view(text)); shallow != nil {
		return shallow
	}
	return text
}

// shallow is Shallow for strings.
func shallow(text string) string {
	if shallow := cut(text); shallow != nil {
		return view(shallow)
	}
	return text
}

// cut is Shallow, but returns nil if nothing is deeper.
func cut(text string) []byte {
	var shallow []byte // nil until a value is omitted
	kept, level := 0, 0
	for at, step := nextBracket(text, 0); step != 0; at, step = nextBracket(text, at+1) {
		level += step
		switch {
		case step > 0 && level == maxReadDepth+1:
			shallow = append(append(shallow, text[kept:at]...), "null"...)
		case step < 0 && level == maxReadDepth:
			kept = at + 1
		}
	}
	if shallow == nil || level > maxReadDepth { // the latter is not valid JSON
		return nil
	}
	return append(shallow, text[kept:]...)
}
