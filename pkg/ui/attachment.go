package ui

import (
	"encoding/json"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

const (
	// maxShownAttachment limits the JSON of an attachment in bytes where a page only shows it.
	maxShownAttachment = 64 << 10
	// maxEditedTexts limits the texts of a flag in bytes for which there is a form. Browsers send up to three bytes of
	// maxFormBytes for each.
	maxEditedTexts = 2_500_000
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

// isShown reports whether a page shows an attachment that it cannot change.
func isShown(a entity.Attachment) bool {
	return afterIndented(map[string]any(a), 0, maxShownAttachment) >= 0
}

// shownAttachment returns the text of an attachment for a page that cannot change it.
func (c *texts) shownAttachment(a entity.Attachment) string {
	if !isShown(a) {
		return c.plain("attachment.long", "most", maxShownAttachment)
	}
	return attachmentText(a)
}

// isEditable reports whether the texts of a flag fit into a form that a browser can send.
func isEditable(f *entity.Flag) bool {
	left := maxEditedTexts - len(f.Key) - len(f.Description) - len(f.Notes)
	for i := range f.Variants {
		left = afterIndented(map[string]any(f.Variants[i].Attachment), 0, left-len(f.Variants[i].Key))
	}
	for i := range f.Segments {
		s := &f.Segments[i]
		left -= len(s.Description)
		for j := range s.Constraints {
			left -= len(s.Constraints[j].Property) + len(s.Constraints[j].Value)
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

// afterIndented returns how many of left bytes remain after those of a value in attachmentText, regardless of what JSON
// escapes. It stops below 0.
func afterIndented(value any, indent, left int) int {
	inner := len("\n,") + indent + indentStep
	switch v := value.(type) {
	case map[string]any:
		left -= len("{\n}") + indent
		for name, member := range v {
			if left < 0 {
				break
			}
			left = afterIndented(member, indent+indentStep, left-inner-len(name)-len(`"": `))
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
		return left - len(v) - len(`""`)
	case json.Number:
		return left - len(v)
	default:
		return left - len("false")
	}
}
