package ui

import (
	"encoding/json"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

const (
	// maxShownAttachment limits the JSON of an attachment in formBytes where a page only shows it.
	maxShownAttachment = 64 << 10
	// maxShownAttachments limits all such attachments of a flag together.
	maxShownAttachments = 1 << 20
	// maxEditedTexts limits the texts of a flag in formBytes for which there is a form. Browsers send up to three bytes of
	// maxFormBytes for each. maxFormTexts limits the texts of a form, which also has numbers.
	maxEditedTexts = 2_500_000
	maxFormTexts   = 2_750_000
	// bytesPerFormByte is what a byte of a text can take once an attachment is decoded.
	bytesPerFormByte = 24
	// indentStep is the indent of each level of an attachment.
	indentStep = 2
)

// attachmentText returns the JSON of an attachment, or an empty string if it has no members. Check its length first: indents
// make nested lists up to 100 times as long.
func attachmentText(a entity.Attachment) string {
	if len(a) == 0 {
		return ""
	}
	var b strings.Builder
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", strings.Repeat(" ", indentStep))
	if err := encoder.Encode(map[string]any(a)); err != nil {
		return ""
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// attachmentPart is what remains of maxShownAttachments on a page that cannot change attachments.
type attachmentPart struct {
	texts *texts
	left  int
}

func (c *texts) attachmentPart() *attachmentPart { return &attachmentPart{c, maxShownAttachments} }

// shown returns the text of an attachment. If it is too long, shown returns a sentence and false.
func (p *attachmentPart) shown(a entity.Attachment) (text string, ok bool) {
	most := min(maxShownAttachment, p.left)
	after := afterIndented(map[string]any(a), 0, most)
	switch {
	case after >= 0:
		p.left -= most - after
		return attachmentText(a), true
	case most < maxShownAttachment:
		return p.texts.plain("attachment.more", "most", maxShownAttachments), false
	default:
		return p.texts.plain("attachment.long", "most", maxShownAttachment), false
	}
}

// isEditable reports whether the texts of a flag fit into a form that a browser can send.
func isEditable(f *entity.Flag) bool {
	left := maxEditedTexts - len(f.Key) - formBytes(f.Description) - formBytes(f.Notes)
	for i := range f.Variants {
		left = afterIndented(map[string]any(f.Variants[i].Attachment), 0, left-len(f.Variants[i].Key))
	}
	for i := range f.Segments {
		s := &f.Segments[i]
		left -= formBytes(s.Description)
		for j := range s.Constraints {
			left -= formBytes(s.Constraints[j].Property) + formBytes(s.Constraints[j].Value)
		}
	}
	return left >= 0
}

// checkEditable reports, as entity.ErrInvalid, a flag that is not editable.
func (u *UI) checkEditable(f *entity.Flag) error {
	if isEditable(f) {
		return nil
	}
	return entity.Invalid("%s", u.text.plain("edit.err.texts.alone", "most", maxEditedTexts))
}

// formBytes returns at least half of the bytes of a text on a page, and at least a third of those in a form that is sent:
// its length, with characters counted three times that JSON or HTML escapes. It does not count carriage returns, which
// browsers add.
func formBytes(text string) int {
	n := len(text)
	for i := range len(text) {
		switch c := text[i]; {
		case c == '\r':
			n--
		case c == '"', c == '\'', c == '<', c == '>', c == '&', c == '+', c == '\\', c < ' ' && c != '\n' && c != '\t':
			n += 2
		}
	}
	return n
}

// stringBytes returns the formBytes of a string as JSON.
func stringBytes(text string) int {
	n := formBytes(text) + formBytes(`""`) + 5*(strings.Count(text, "\u2028")+strings.Count(text, "\u2029"))
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"', c == '\\', c == '\n', c == '\t':
			n += 3
		case c == '\r':
			n += 4
		case c < ' ':
			n += 5
		}
	}
	return n
}

// afterIndented returns how many of left bytes remain after the formBytes of a value in attachmentText. It stops below 0.
func afterIndented(value any, indent, left int) int {
	inner := len("\n,") + indent + indentStep
	switch v := value.(type) {
	case map[string]any:
		left -= len("{\n}") + indent
		for name, member := range v {
			if left < 0 {
				break
			}
			left = afterIndented(member, indent+indentStep, left-inner-stringBytes(name)-len(": "))
		}
		return left
	case []any:
		left -= len("[\n]") + indent
		for _, item := range v {
			if left < 0 {
				break
			}
			left = afterIndented(item, indent+indentStep, left-inner)
		}
		return left
	case string:
		return left - stringBytes(v)
	case json.Number:
		return left - len(v)
	default:
		return left - len("false")
	}
}
