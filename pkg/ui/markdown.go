package ui

import (
	"bytes"
	"html/template"
	"regexp"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/parser"
	"github.com/yuin/goldmark/renderer/html"
	"github.com/yuin/goldmark/text"
	"github.com/yuin/goldmark/util"
)

// Notes beyond one of these limits are shown as plain text. For each mark, the parser may search
// all other marks, all lines or all bytes of a paragraph for its counterpart. These limits bound
// the work for every input.
const (
	maxNotes     = 32 << 10 // bytes
	maxNoteLines = 1000
	maxNoteMarks = 2000 // characters that may begin or end inline markup
	// maxNoteCells limits the cells of tables: the parser adds those that lines of a table lack.
	maxNoteCells = 10_000
	// maxPlainNotes limits notes in bytes that are shown as plain text.
	maxPlainNotes = 64 << 10
)

// deeplyNested matches a line that begins with more than 32 quotes and lists within each other. The
// time and memory of the parser grow with the square of their number.
var deeplyNested = regexp.MustCompile(`(?m)^(?:[ \t]*(?:>|[-+*][ \t]|\d{1,9}[.)][ \t])){33}`)

// markdown formats notes. It omits raw HTML, converts images to links, and removes the target of
// links with unusual schemes.
func markdown(notes string) template.HTML {
	if strings.TrimSpace(notes) == "" {
		return ""
	}
	plain := template.HTML("<pre>" + template.HTMLEscapeString(shorten(notes, maxPlainNotes)) + "</pre>") //nolint:gosec // escaped
	if len(notes) > maxNotes || strings.Count(notes, "\n") > maxNoteLines || marks(notes) > maxNoteMarks || cells(notes) > maxNoteCells || deeplyNested.MatchString(notes) {
		return plain
	}
	format := goldmark.New(
		goldmark.WithExtensions(extension.Table, extension.Strikethrough, extension.Linkify),
		goldmark.WithParserOptions(parser.WithASTTransformers(util.Prioritized(imagesToLinks{}, 100))),
		goldmark.WithRendererOptions(html.WithHardWraps()),
	)
	var b bytes.Buffer
	if err := format.Convert([]byte(notes), &b); err != nil {
		return plain
	}
	return template.HTML(b.String()) //nolint:gosec // goldmark escapes, and leaves raw HTML out
}

// marks returns the number of characters that may begin or end inline markup.
func marks(notes string) (n int) {
	for _, c := range []byte(notes) {
		switch c {
		case '*', '_', '~', '[', ']', '`', '<', '\\':
			n++
		}
	}
	return n
}

// cells returns at least the number of cells that all tables of the notes have, those included that
// their lines lack. It is the number of lines if there is no table.
func cells(notes string) int {
	lines, most := 0, 0
	for line := range strings.Lines(notes) {
		lines++
		most = max(most, strings.Count(line, "|"))
	}
	return lines * (most + 1)
}

// imagesToLinks prevents notes from loading anything, and puts their headings below those of the
// page.
type imagesToLinks struct{}

// Transform implements parser.ASTTransformer.
func (imagesToLinks) Transform(document *ast.Document, _ text.Reader, _ parser.Context) {
	var images []*ast.Image
	_ = ast.Walk(document, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		switch n := n.(type) {
		case *ast.Image:
			if entering {
				images = append(images, n)
			}
		case *ast.Heading:
			if entering {
				n.Level = min(6, n.Level+2)
			}
		}
		return ast.WalkContinue, nil
	})
	for _, image := range images {
		link := ast.NewLink()
		link.Destination, link.Title = image.Destination, image.Title
		if image.ChildCount() == 0 {
			link.AppendChild(link, ast.NewString(image.Destination))
		}
		for child := image.FirstChild(); child != nil; {
			next := child.NextSibling()
			link.AppendChild(link, child)
			child = next
		}
		image.Parent().ReplaceChild(image.Parent(), image, link)
	}
}
