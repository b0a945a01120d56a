package ui

import (
	"bytes"
	"encoding/json"
	"strings"

	"github.com/flagr-datar/flagr-datar/pkg/entity"
)

const (
	// maxShownAttachment limits the JSON of an attachment in formBytes where a page only shows it.
	maxShownAttachment = 64 << 10
	// maxShownAttachments limits all such attachments of a flag together.
	maxShownAttachments = 1 << 20
	// maxEditedTexts limits the texts of a flag in formBytes for which there is a form. Browsers
	// send up to three bytes of maxFormBytes for each. maxFormTexts limits the texts of a form,
	// which also has numbers.
	maxEditedTexts = 2_500_000
	maxFormTexts   = 2_750_000
	// bytesPerFormByte is what a byte of a text can take: in the body, in the fields, in the flag
	// and on the page.
	bytesPerFormByte = 14
	// indentStep is the indent of each level of an attachment.
	indentStep = 2
)

// attachmentText returns the JSON of an attachment with indents, or an empty string if it has no
// members. Check its length first: indents make nested lists up to 100 times as long.
func attachmentText(a entity.Attachment) string {
	if !a.HasMembers() {
		return ""
	}
	var b bytes.Buffer
	_ = json.Indent(&b, []byte(a), "", strings.Repeat(" ", indentStep)) // never fails: it is valid
	return b.String()
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
	after := afterIndented(a, most)
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
		left = afterIndented(f.Variants[i].Attachment, left-len(f.Variants[i].Key))
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

// formBytes returns at least half of the bytes of a text on a page, and at least a third of those
// in a form that is sent: its length, with characters counted three times that JSON or HTML
// escapes. It does not count carriage returns, which browsers add.
func formBytes(text string) int {
	n := len(text)
	for i := range len(text) {
		n += moreBytes(text[i])
	}
	return n
}

// moreBytes returns what formBytes counts for a character in addition to its length.
func moreBytes(c byte) int {
	switch {
	case c == '\r':
		return -1
	case c == '"', c == '\'', c == '<', c == '>', c == '&', c == '+', c == '\\', c < ' ' && c != '\n' && c != '\t':
		return 2
	default:
		return 0
	}
}

// afterIndented returns how many of left bytes remain after the formBytes of attachmentText. It
// stops below 0.
func afterIndented(a entity.Attachment, left int) int {
	if !a.HasMembers() {
		return left
	}
	inString, line := false, len("\n")
	for i := 0; i < len(a) && left >= 0; i++ {
		c := a[i]
		left -= 1 + moreBytes(c)
		switch {
		case inString && c == '\\':
			i++
			left -= 1 + moreBytes(a[i])
		case c == '"':
			inString = !inString
		case inString:
		case c == ':':
			left-- // a space
		case c == ',':
			left -= line
		case (c == '{' || c == '[') && a[i+1] == c+2: // the closing one
			i++
			left--
		case c == '{', c == '[':
			line += indentStep
			left -= line
		case c == '}', c == ']':
			line -= indentStep
			left -= line
		}
	}
	return left
}
